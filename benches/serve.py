#!/usr/bin/env python3
"""How fast `latentr3 serve` answers, beside the search that it does, and whether its memory stays.

  serve.py --latentr3 target/release/latentr3 --model RUN --data PREPARED [--requests 2000] [--clients 64] [--json FILE]

First `latentr3 bench` times the search without a server: of one user (`latency`), and of 16 users at once (`eval`). Then a
server on loopback is asked for the histories of test rows: by one client, which waits for each answer before it asks again,
and by many. Connections are kept. Memory is what the system says that the server holds (VmRSS), after each tenth of the
requests of many clients. Nothing but Python's standard library is needed.
"""
import argparse, asyncio, json, os, re, statistics, subprocess, threading, time


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def bodies(data, top):
    catalog = [item["id"] for item in lines(os.path.join(data, "catalog.jsonl"))]
    rows = lines(os.path.join(data, "test.jsonl")) or lines(os.path.join(data, "train.jsonl"))
    return [json.dumps({"history": [catalog[item] for item in row["history"]], "top": top}).encode() for row in rows]


def bench(args, *options):
    command = [args.latentr3, "bench", *options, "--model", args.model, "--data", args.data, "--threads", "0"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(process):
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024


async def answer(reader):
    """The status of an answer; its body is read and left."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def client(address, source, seconds, statuses, after):
    reader, writer = await asyncio.open_connection(*address)
    for body in source:
        began = time.perf_counter()
        writer.write(
            b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        status = await answer(reader)
        seconds.append(time.perf_counter() - began)
        statuses[status] = statuses.get(status, 0) + 1
        after(len(seconds))
    writer.close()


async def load(address, bodies, requests, clients, after=lambda done: None):
    seconds, statuses = [], {}
    source = (bodies[at % len(bodies)] for at in range(requests))
    began = time.perf_counter()
    await asyncio.gather(*(client(address, source, seconds, statuses, after) for _ in range(clients)))
    wall = time.perf_counter() - began
    percentile = statistics.quantiles(seconds, n=100)
    return {
        "clients": clients,
        "requests": len(seconds),
        "errors": sum(count for status, count in statuses.items() if status != 200),
        "p50_ms": 1000 * percentile[49],
        "p95_ms": 1000 * percentile[94],
        "p99_ms": 1000 * percentile[98],
        "per_second": len(seconds) / wall,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latentr3", required=True)
    parser.add_argument("--model", required=True, help="a run of a language model")
    parser.add_argument("--data", required=True, help="prepared data")
    parser.add_argument("--requests", type=int, default=2000, help="of many clients; a tenth of it of one client")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--json", help="write the figures here")
    args = parser.parse_args()
    users = str(max(16, args.requests // 10))
    search = bench(args, "latency", "--batch", "1", "--users", "64", "--steps", "2")
    batch = bench(args, "eval", "--batch", "16", "--users", users)
    command = [args.latentr3, "serve", "--model", args.model, "--data", args.data, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        host, port = server.stderr.readline().strip().rsplit("http://", 1)[1].rsplit(":", 1)
        # It never waits for somebody to read its log.
        threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
        address, asked = (host, int(port)), bodies(args.data, 10)
        one = asyncio.run(load(address, asked, max(100, args.requests // 10), 1))
        held, tenth = [memory(server)], max(1, args.requests // 10)
        after = lambda done: held.append(memory(server)) if done % tenth == 0 else None
        many = asyncio.run(load(address, asked, args.requests, args.clients, after))
    finally:
        server.terminate()
        server.wait()
    result = {"search": search, "batch": batch, "one": one, "many": many, "memory_mib": held}
    for found in (one, many):
        print(
            f"{found['clients']:3} clients: p50 {found['p50_ms']:.1f} ms, p95 {found['p95_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, "
            f"{found['per_second']:.0f} answers a second, {found['errors']} errors of {found['requests']}"
        )
    print(f"search alone: {json.dumps(search)}")
    print(f"search of 16 users at once: {json.dumps(batch)}")
    print("memory in MiB after each tenth: " + " ".join(f"{mib:.0f}" for mib in held))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=2)


main()
