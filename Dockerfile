# One file, four images:
#   docker build --target operator    -t wasession/operator .
#   docker build --target session-pod -t wasession/session-pod .
#   docker build --target gateway     -t wasession/gateway .
#   docker build --target standin     -t wasession/standin .      (tests and demo only)
#
# BASE may be any Debian 12 root file system. A digest pins it (--build-arg BASE=debian:bookworm-slim@sha256:...), but not
# the packages that apt installs. Where there is no docker, `make images` makes the base with mmdebstrap.
# PIP_CERT and NODE_EXTRA_CA_CERTS: certificates of a proxy that intercepts the TLS of the build.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS debian
# The Debian packages that stay in each image, besides those of the libraries that they link. libstdc++6 is for what pip
# installs; libssl finds openssl.cnf and the certificates through openssl; sh (dash) and coreutils are for people.
ENV PYTHON_PACKAGES="base-files base-passwd ca-certificates coreutils dash gcc-12-base libc-bin libpython3-stdlib \
libpython3.11-minimal libpython3.11-stdlib libstdc++6 media-types openssl python3 python3-minimal python3.11 \
python3.11-minimal tini tzdata"
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 python3 tini \
 && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 wasession \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin wasession
# The only module that links Kerberos.
RUN rm /usr/lib/python3.11/lib-dynload/nis.*.so

FROM debian AS chromium
# CHROMIUM_VERSION: a version of Debian's package, such as 156.0.8078.79-1~deb12u1; the newest by default, as Debian drops old ones.
# /etc/chromium-version has the one that was installed.
ARG CHROMIUM_VERSION
RUN apt-get update \
 && apt-get install -y --no-install-recommends chromium${CHROMIUM_VERSION:+=$CHROMIUM_VERSION} \
    chromium-common${CHROMIUM_VERSION:+=$CHROMIUM_VERSION} fonts-liberation fonts-noto-color-emoji libatomic1 \
    libnss3-tools \
 && dpkg-query --showformat='${Version}' --show chromium > /etc/chromium-version \
 && rm -rf /var/lib/apt/lists/*

# For `make images`, which exports the version and passes it on: a label cannot be read from a file.
FROM scratch AS chromium-version
COPY --from=chromium /etc/chromium-version /

# --- what the images are put together from --------------------------------------------------------------------------
FROM debian AS build
COPY images/ /images/
RUN apt-get update && apt-get install -y --no-install-recommends binutils python3-venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /tmp

FROM build AS operator-venv
ARG PIP_CERT
COPY operator/requirements.lock .
RUN sh /images/install.sh

FROM build AS session-pod-venv
ARG PIP_CERT
COPY session-pod/requirements.lock .
RUN sh /images/install.sh

FROM build AS gateway-venv
ARG PIP_CERT
COPY gateway/requirements.lock .
RUN sh /images/install.sh

FROM build AS npm
RUN apt-get install -y --no-install-recommends npm

FROM npm AS bridge
COPY session-pod/bridge/package.json session-pod/bridge/package-lock.json session-pod/bridge/.npmrc ./
ARG NODE_EXTRA_CA_CERTS
RUN npm ci --ignore-scripts
# Playwright's driver takes 10 MB less without its comments: some of their letters make Node store all of it as UTF-16.
COPY --from=session-pod-venv /opt/venv/lib/python3.11/site-packages/playwright/driver/package/lib/*Bundle.js driver/
RUN npx esbuild driver/*.js --minify-whitespace --platform=node --outdir=driver --allow-overwrite

FROM npm AS socket-io-client
COPY gateway/client/package.json gateway/client/package-lock.json gateway/client/.npmrc ./
ARG NODE_EXTRA_CA_CERTS
RUN npm ci --ignore-scripts --omit=dev

# The images have no package manager. Copying a root file system makes it one layer, without what was removed from it.
FROM debian AS python-root
COPY images/ /images/
RUN python3 -B /images/debian.py prune $PYTHON_PACKAGES && rm -r /images

FROM scratch AS python
COPY --from=python-root / /
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/tini", "--"]

FROM chromium AS chromium-root
# Not used: debugging of Vulkan and its software implementation, as the pod runs Chromium with --disable-gpu and
# --disable-software-rasterizer.
RUN cd /usr/lib/chromium && rm libVk* libvk_swiftshader.so libvulkan.so.1* vk_swiftshader_icd.json
# Chromium looks the types of files up in mime.cache.
RUN find /usr/share/mime -mindepth 1 ! -name mime.cache -delete
COPY images/ /images/
# findutils, grep and util-linux are for Debian's script /usr/bin/chromium, and unshare; libatomic1 is for Playwright's Node.
RUN python3 -B /images/debian.py prune $PYTHON_PACKAGES chromium chromium-common findutils fontconfig-config fonts-liberation \
    fonts-noto-color-emoji grep libatomic1 libnss3-tools util-linux \
 && rm -r /images

# --- the images ---------------------------------------------------------------------------------------------------------
FROM python AS operator
COPY --from=operator-venv /opt/venv /opt/venv
COPY crds/src/ operator/src/ /opt/venv/lib/python3.11/site-packages/
RUN python3 -m compileall -q /opt/venv/lib/python3.11/site-packages/wasession_*
RUN --mount=type=bind,source=images,target=/images python3 -B /images/debian.py check
USER 10001:10001
CMD ["python", "-m", "wasession_operator"]
ARG BASE
ARG VERSION
ARG REVISION
ARG SOURCE
# buildah's cache compares the values of build arguments for RUN alone.
RUN :
LABEL org.opencontainers.image.title="wasession operator" \
      org.opencontainers.image.description="Keeps one pod and one volume per WhatsAppSession" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.source=${SOURCE} \
      org.opencontainers.image.base.name=${BASE}

FROM scratch AS session-pod
COPY --from=chromium-root / /
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/tini", "--"]
ARG CHROMIUM_VERSION
# The content of the target chromium-version, from `make images`. The label is right, or empty without it.
ARG CHROMIUM_INSTALLED=${CHROMIUM_VERSION}
RUN installed=$(cat /etc/chromium-version) && test "${CHROMIUM_INSTALLED:-$installed}" = "$installed"
COPY --from=session-pod-venv /opt/venv /opt/venv
COPY --from=bridge /tmp/driver/ /opt/venv/lib/python3.11/site-packages/playwright/driver/package/lib/
COPY --from=bridge /tmp/node_modules/@wppconnect/wa-js/dist/wppconnect-wa.js /tmp/node_modules/@wppconnect/wa-js/LICENSE* /opt/wasession/bridge/
ENV WASESSION_WA_JS=/opt/wasession/bridge/wppconnect-wa.js
COPY crds/src/ session-pod/src/ /opt/venv/lib/python3.11/site-packages/
RUN python3 -m compileall -q /opt/venv/lib/python3.11/site-packages/wasession_*
RUN --mount=type=bind,source=images,target=/images python3 -B /images/debian.py check
# Playwright's driver, compiled once for all its starts. Node looks for it under its user ID, and the pod makes the link.
ENV NODE_COMPILE_CACHE=/opt/wasession/driver
# Any user ID works, with group 0 or, on a volume, with the group of the volume. A new volume of Docker's gets the owner,
# group and mode of the directory that it is mounted on.
RUN install -d -o 10001 -g 0 -m 775 $NODE_COMPILE_CACHE && install -d -o 10001 -g 0 -m 2770 /var/lib/wasession
USER 10001:0
RUN cd /opt/venv/lib/python3.11/site-packages/playwright/driver && ./node package/cli.js run-driver < /dev/null \
 && chmod -R g=u,o=rX $NODE_COMPILE_CACHE
EXPOSE 8080
CMD ["python", "-m", "wasession_pod"]
ARG BASE
ARG VERSION
ARG REVISION
ARG SOURCE
RUN :
LABEL org.opencontainers.image.title="wasession session pod" \
      org.opencontainers.image.description="One WhatsApp Web login in one Chromium, served over HTTP" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.source=${SOURCE} \
      org.opencontainers.image.base.name=${BASE} \
      wasession.dev/chromium-version=${CHROMIUM_INSTALLED}

FROM python AS gateway
COPY --from=gateway-venv /opt/venv /opt/venv
COPY --from=socket-io-client /tmp/node_modules/socket.io-client/dist/socket.io.esm.min.js /tmp/node_modules/socket.io-client/LICENSE /opt/wasession/client/
ENV WASESSION_SOCKET_IO_CLIENT=/opt/wasession/client/socket.io.esm.min.js
COPY crds/src/ gateway/src/ /opt/venv/lib/python3.11/site-packages/
RUN python3 -m compileall -q /opt/venv/lib/python3.11/site-packages/wasession_*
RUN --mount=type=bind,source=images,target=/images python3 -B /images/debian.py check
USER 10001:10001
EXPOSE 8080 8081
CMD ["python", "-m", "wasession_gateway"]
ARG BASE
ARG VERSION
ARG REVISION
ARG SOURCE
RUN :
LABEL org.opencontainers.image.title="wasession gateway" \
      org.opencontainers.image.description="REST, Socket.IO and a console in front of WhatsAppSessions" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.source=${SOURCE} \
      org.opencontainers.image.base.name=${BASE}

FROM operator AS standin
COPY tests/support/standin/ /opt/venv/lib/python3.11/site-packages/support/standin/
CMD ["python", "-m", "support.standin", "--host", "0.0.0.0", "--port", "8080"]
LABEL org.opencontainers.image.title="wasession stand-in" \
      org.opencontainers.image.description="Stands in for web.whatsapp.com in tests and in the demo"
