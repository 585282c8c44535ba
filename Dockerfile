# syntax=docker/dockerfile:1
# One binary that is every role; which one it is says the command: gateway, logic, repo, task.
FROM rust:1.95-bookworm AS builder
WORKDIR /source
COPY . .
# cc and make, for SQLite and librdkafka, are in the image. The caches stay with the builder, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --features distributed --bin gochat \
    && install -D -m 0755 target/release/gochat /out/gochat

FROM debian:bookworm-slim
# Made here so that volumes mounted there belong to the user.
RUN groupadd --gid 10001 gochat \
    && useradd --uid 10001 --gid gochat --home-dir /var/lib/gochat --no-create-home --shell /usr/sbin/nologin gochat \
    && install -d -o gochat -g gochat -m 0700 /var/lib/gochat /var/lib/gochat/data /var/lib/gochat/secrets
COPY --from=builder /out/gochat /usr/local/bin/gochat
USER 10001:10001
WORKDIR /var/lib/gochat
ENV GOCHAT_DATA=/var/lib/gochat/data
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["gochat"]
