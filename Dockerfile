# Images of the two Cleave nodes: build with --target cloud or --target edge.
# No BuildKit-only instruction is used, so the legacy builder takes it as well.

ARG BUILDER_IMAGE=rust:1.95-bookworm
# Needs no libc and no shell: the binaries are static and the health check is one of their subcommands.
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${BUILDER_IMAGE} AS build
# CI builds without it: a smaller program is worth no minutes there.
ARG CARGO_PROFILE_RELEASE_LTO=thin
ENV CARGO_TARGET_DIR=/target \
    RUSTFLAGS="-C target-feature=+crt-static"

# The dependencies alone, in a layer that a change to the sources keeps. The stubs lie in another
# folder than the sources, so that cargo never takes a stub for an up-to-date crate.
WORKDIR /stub
COPY Cargo.toml Cargo.lock ./
COPY shared/Cargo.toml shared/
COPY cloud-node/Cargo.toml cloud-node/
COPY edge-node/Cargo.toml edge-node/
# A failure here costs time only (the next step builds everything), so it does not end the build.
# --target is named although it is the host: without it RUSTFLAGS would reach the proc macros.
RUN for crate in shared cloud-node edge-node; do \
        mkdir -p "$crate/src" && touch "$crate/src/lib.rs" \
        && echo 'fn main() {}' | tee "$crate/build.rs" > "$crate/src/main.rs"; \
    done; \
    cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
        -p cloud-node -p edge-node \
    || echo 'the dependencies could not be built ahead of the sources'

WORKDIR /src
COPY . .
# The stubs went by these crates' names and are newer than the sources: cargo would take them for built.
RUN set -eu; \
    target="$(rustc -vV | sed -n 's/^host: //p')"; \
    cargo clean --release --target "$target" -p cleave-shared -p cloud-node -p edge-node; \
    cargo build --release --locked --target "$target" -p cloud-node -p edge-node; \
    mkdir -p /out/state /out/certs/ca /out/certs/cloud /out/certs/edge; \
    cp "/target/$target/release/cloud-node" "/target/$target/release/edge-node" /out/; \
    cp -r config /out/config; \
    chmod -R a+rX,go-w /out/config

FROM ${RUNTIME_IMAGE} AS runtime
COPY --from=build /out/config/ /etc/cleave/
# Docker gives a fresh named volume the owner of the folder it is mounted on.
COPY --from=build --chown=65532:65532 /out/state/ /var/lib/cleave/
# Where `edge-node certs` may write.
COPY --from=build --chown=65532:65532 /out/certs/ /certs/
ENV CLEAVE_RUNS__DIR=/var/lib/cleave
WORKDIR /var/lib/cleave
USER 65532:65532

FROM runtime AS cloud
COPY --from=build /out/cloud-node /usr/local/bin/cloud-node
EXPOSE 50051
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
    CMD ["/usr/local/bin/cloud-node", "health", "--config", "/etc/cleave/cleave.toml"]
ENTRYPOINT ["/usr/local/bin/cloud-node"]
CMD ["serve", "--config", "/etc/cleave/cleave.toml"]

FROM runtime AS edge
COPY --from=build /out/edge-node /usr/local/bin/edge-node
EXPOSE 8000 8001
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
    CMD ["/usr/local/bin/edge-node", "health", "--config", "/etc/cleave/cleave.toml"]
ENTRYPOINT ["/usr/local/bin/edge-node"]
CMD ["serve", "--config", "/etc/cleave/cleave.toml"]
