# `make demo` and `make test` install what they need; everything else here is what they are made of.
PYTHON ?= python3
VENV := .venv
RUN := PYTHONPATH=tests $(VENV)/bin/python
PYTEST := $(RUN) -m pytest
# Most tests wait for something, so there are more processes than CPUs.
PARALLEL := -n $(or $(WORKERS),3)
NODE := session-pod/bridge gateway/client tests/bench/session_pod/peer tests/support/documents tests/support/standardwebhooks

.PHONY: help demo demo-down test coverage test-unit test-integration test-e2e bench-session-pod bench-session-pod-kills bench-density bench-operator bench-operator-shards bench-operator-failover bench-gateway bench-delivery bench-delivery-kills bench-hibernation chart-fuzz idle-audit lease-drills login-drills rollout-drills upgrade-drill release-drill watch-faults lint format images images-arm64 crds chart-readme screenshots cast docs release publish lock clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

demo: setup  ## a real Kubernetes with the operator, one session paired, restarted twice; stays up
	$(RUN) -m demo up

demo-down: setup  ## takes the demo down and leaves nothing behind
	$(RUN) -m demo down

# Many tests let real clocks run, and a machine that stands still for seconds fails some of them:
# what has failed is tried once more, alone.
test: lint  ## all tests side by side
	$(PYTEST) $(PARALLEL) tests || $(PYTEST) --last-failed --last-failed-no-failures none tests

coverage: setup  ## the branch coverage of all tests, which slows them down
	$(PYTEST) $(PARALLEL) --cov --cov-report=term tests

test-unit: setup  ## tests of pure code
	$(PYTEST) tests/unit

test-integration: setup  ## each program against fakes: the operator, the gateway, the session pod
	$(PYTEST) $(PARALLEL) tests/integration tests/bench

test-e2e: setup  ## everything on a real cluster; CLUSTER=embedded|kind|existing
	$(PYTEST) --cluster=$(or $(CLUSTER),embedded) tests/e2e

bench-session-pod: setup  ## the session pod measured against whatsapp-web.js; half an hour
	$(RUN) -m bench.session_pod

bench-session-pod-kills: setup  ## SIGKILL a hundred times at random moments after sessionValid; twenty minutes
	$(RUN) -m bench.session_pod_kills

bench-density: setup  ## how many sessions a node's memory holds, with and without swap; as root, two hours
	$(RUN) -m bench.density

bench-operator: setup  ## the operator measured beside StatefulSets, with fake session pods; an hour
	$(RUN) -m bench.operator --sessions 1000
	$(RUN) -m bench.operator --sessions 1000 --rate 5
	$(RUN) -m bench.operator --sessions 5000

bench-operator-shards: setup  ## 20,000 sessions in four shards, of which 19,500 stand already; 16 GiB
	$(RUN) -m bench.operator --sessions 20000 --standing 19500 --shards 4 --replicas 4 --rate 5 --without-peers

bench-operator-failover: setup  ## leaders that are killed, frozen or stopped, beside client-go's election; two hours
	$(RUN) -m bench.operator --failover 30 --sessions 200
	$(RUN) -m bench.operator --failover 30 --sessions 200 --shards 4 --replicas 4 --without-peers

bench-gateway: setup  ## the gateway measured beside plain aiohttp and bare python-socketio; five minutes
	$(RUN) -m bench.gateway

bench-delivery: setup  ## how soon a webhook is told, and how quickly a queue drains; five minutes
	$(RUN) -m bench.delivery --part latency --part drain

bench-delivery-kills: setup  ## SIGKILL the session pod, and whatsapp-web.js, a hundred times while messages come; half an hour
	$(RUN) -m bench.delivery --part kills

bench-hibernation: setup  ## 200 real sessions of which a tenth is awake, woken by texts; as root, an hour, 12 GiB
	$(RUN) -m bench.hibernation

chart-fuzz: setup  ## the chart rendered with 500 values that its schema accepts, and 500 that it refuses; ten minutes
	CHART_EXAMPLES=500 $(PYTEST) tests/integration/operator/test_chart_lint.py -k schema --timeout=1800

idle-audit: setup  ## 200 sessions that are Ready for ten minutes: nothing may be written
	IDLE_SESSIONS=200 IDLE_SECONDS=600 $(PYTEST) tests/integration/operator/test_idle.py -k nothing_is_written --timeout=1500

lease-drills: setup  ## the holder of a shard stands still 200 times, and goes on when another one acts; a quarter of an hour
	LEASE_DRILLS=200 $(PYTEST) tests/integration/operator/test_replicas.py -k frozen

rollout-drills: setup  ## a class with six real sessions is changed for the worse in each way, then for the better; ten minutes
	ROLLOUT_SESSIONS=6 $(PYTEST) tests/e2e/test_rollout.py

upgrade-drill: setup  ## an earlier version with a linked session is upgraded to this one, and back; FROM=v1.2.3; ten minutes
	FROM=$(FROM) $(PYTEST) tests/e2e/test_upgrade.py

release-drill: setup  ## chart and an image are published to a real registry and fetched again; five minutes
	RELEASE_DRILL=1 $(PYTEST) tests/integration/release/test_registry.py --timeout=1500

login-drills: setup  ## a login is lost and restored 30 times: with its namespace, its cluster, or etcd; an hour
	LOGIN_DRILLS=30 $(PYTEST) -s tests/e2e/test_disaster.py

watch-faults: setup  ## each watch of the operator fails in each way, alone; an hour
	WATCH_FAULTS=all $(PYTEST) tests/integration/operator/test_watch_faults.py --timeout=1500

lint: setup  ## ruff, import-linter and mypy
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy cli/src crds/src gateway/src operator/src session-pod/src tests images website release

format: setup
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

images: setup  ## the images, with docker or buildah; BASE=debian:bookworm-slim@sha256:…, SOURCE=https://…
	$(RUN) -m support.cluster.images

images-arm64: setup  ## the same for arm64, with qemu on other machines, slowly
	$(RUN) -m support.cluster.images --architecture arm64

crds: setup  ## the CRD from its pydantic models
	$(RUN) -m wasession_api.crd

chart-readme: setup  ## the table of values in the chart's README, from values.yaml
	$(RUN) -m support.chart.reference

screenshots: setup  ## docs/images, taken of the console in a real Chromium
	$(RUN) -m integration.gateway.screenshots

cast: setup  ## docs/images/kubectl-wasession.svg, of the plugin in a terminal
	$(RUN) -m unit.cli.cast

docs: setup  ## the site of docs/ in build/docs; fails at a link that leads nowhere; SITE_URL and SOURCE are where it is published
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "build/docs/index.html"

release: setup  ## build/release: images, chart, CRDs, plugin, checksums; VERSION=1.2.3 KEY=cosign.key, and ARCHITECTURES=amd64
	PYTHONPATH=tests:. $(VENV)/bin/python -m release $(VERSION) --key "$(KEY)" $(if $(ARCHITECTURES),--architectures $(ARCHITECTURES))

publish: setup  ## push build/release: VERSION=1.2.3 REGISTRY=registry.example/wasession
	PYTHONPATH=tests:. $(VENV)/bin/python -m release.publish $(VERSION) $(REGISTRY)

lock:  ## requirements.lock of the workspace and of each image, from one resolution
	$(VENV)/bin/uv lock
	$(VENV)/bin/uv export --frozen --no-header --no-annotate --no-emit-workspace --quiet --all-packages --all-groups -o requirements.lock
	$(VENV)/bin/uv export --frozen --no-header --no-annotate --no-emit-workspace --quiet --package wasession-cli -o cli/requirements.lock
	$(VENV)/bin/uv export --frozen --no-header --no-annotate --no-emit-workspace --quiet --package wasession-operator --extra tracing -o operator/requirements.lock
	$(VENV)/bin/uv export --frozen --no-header --no-annotate --no-emit-workspace --quiet --package wasession-gateway --extra tracing -o gateway/requirements.lock
	$(VENV)/bin/uv export --frozen --no-header --no-annotate --no-emit-workspace --quiet --package wasession-pod --extra tracing -o session-pod/requirements.lock

clean:
	rm -rf $(VENV) build $(NODE:%=%/node_modules) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

.PHONY: setup
setup: $(VENV)/installed $(NODE:%=%/node_modules/installed)

$(VENV)/installed: requirements.lock cli/pyproject.toml crds/pyproject.toml gateway/pyproject.toml operator/pyproject.toml session-pod/pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(VENV)/bin/uv pip sync --quiet --python $(VENV)/bin/python --require-hashes requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e cli -e crds -e gateway -e operator -e session-pod
	touch $@

%/node_modules/installed: %/package-lock.json
	npm ci --prefix $* --ignore-scripts --no-audit --no-fund
	touch $@
