"""What of a page's text is shown."""

from __future__ import annotations

import pytest
from wasession_pod.browser.outline import MAXIMUM_SIZE, SHORTENED, presentable

QR = "2@q7Bx0+vY/1ZpLk3mN8sT5uWcE2rA9dFg,{0},{0},{0}".format(
    "p4Xq9Zc1Vb7Nm3Lk5Jh8Gf2Ds6Ap0Qw=Er+Ty/Ui4Op="
)


@pytest.mark.parametrize("text", [QR, f"https://wa.me/settings/linked_devices#{QR}"])
def test_the_content_of_a_qr_is_not(text: str) -> None:
    shown = presentable(f'- heading "Scan"\n- text: {text}')
    assert shown.startswith('- heading "Scan"')
    assert not any(part in shown for part in QR.split(","))


def test_other_texts_are() -> None:
    text = '- dialog:\n  - link "Mehr":\n    - /url: https://faq.whatsapp.com/13176/?locale=de_DE\n'
    assert presentable(text) == text


@pytest.mark.parametrize("character", ["x ", "ü ", "😀"])
def test_a_long_text_is_cut_to_size(character: str) -> None:
    shown = presentable(character * MAXIMUM_SIZE)
    assert MAXIMUM_SIZE - 4 < len(shown.encode()) <= MAXIMUM_SIZE
    assert shown.endswith(SHORTENED)
    text = character * (MAXIMUM_SIZE // len(character.encode()))
    assert presentable(text) == text


def test_half_a_character_is_no_fault() -> None:
    assert presentable("a \ud83d b") == "a ? b"
