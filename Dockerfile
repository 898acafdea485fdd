# The server for a shop's folder, as one static program and nothing else:
#
#     docker build -t latentr3 .
#     docker run --read-only -v "$PWD/shop:/shop:ro" -p 8080:8080 -e LATENTR3_API_KEY=... latentr3
#
# Requests that add items or reload need the key and a folder that can be written. Other commands: `docker run latentr3 COMMAND ...`.
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
# The second flag has random numbers come from the kernel, where there may be no /dev.
ENV RUSTFLAGS="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\""
RUN cargo build --release --target x86_64-unknown-linux-gnu \
    && strip -o /latentr3 target/x86_64-unknown-linux-gnu/release/latentr3

FROM scratch
COPY --from=build /latentr3 /latentr3
EXPOSE 8080
ENTRYPOINT ["/latentr3"]
CMD ["serve", "--model", "/shop", "--host", "0.0.0.0"]
