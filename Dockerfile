# The images of authz and of its sample MCP servers. They build from dist/, which
# `make wheelhouse` fills from requirements.lock, and from nothing else: no network, no compiler.
#
#   make image          both, as localhost/authz:VERSION and localhost/authz-samples:VERSION
#
# The final stages hold Python, the packages of their list and nothing that installs packages. Who
# runs them is decided where they run (compose: `user`); by themselves they are nobody's.
FROM python:3.11.14-slim-bookworm AS build
ARG LIST=authz
# What changes seldom first: a change of ours costs no more than our own wheel.
COPY dist/wheelhouse /wheels
RUN python3 -m venv --symlinks /opt/authz \
 && /opt/authz/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
      --no-index --find-links=/wheels --no-deps --require-hashes -r /wheels/$LIST.txt
COPY dist/authz /own
COPY dist/demo /demo
# The compiled wheel where there is one that fits this system, else the sources as they are.
RUN own="/opt/authz/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
      --no-index --no-deps --force-reinstall" \
 && $own /own/authz-*-none-any.whl \
 && { ! ls /own/authz-*-linux_*.whl \
      || { $own /own/authz-*-linux_*.whl && /opt/authz/bin/python -c "import authz.server.check"; } \
      || $own /own/authz-*-none-any.whl; } \
 && { [ "$LIST" != samples ] || $own /demo/authz_demo-*.whl; } \
 && rm -rf /opt/authz/lib/python3.11/site-packages/pip* \
      /opt/authz/lib/python3.11/site-packages/setuptools* /opt/authz/bin/pip* \
      /opt/authz/bin/activate* /opt/authz/bin/Activate.ps1

FROM python:3.11.14-slim-bookworm AS samples
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/authz/bin:/usr/local/bin:/usr/bin:/bin
COPY --from=build /opt/authz /opt/authz
USER 65532:65532
ENTRYPOINT ["/opt/authz/bin/python3", "-P", "-m", "authz_demo.samples"]

FROM python:3.11.14-slim-bookworm AS authz
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/authz/bin:/usr/local/bin:/usr/bin:/bin
COPY --from=build /opt/authz /opt/authz
USER 65532:65532
ENTRYPOINT ["/opt/authz/bin/authz"]
CMD ["serve", "-c", "/etc/authz/authz.yaml"]
