"""What pandas_steps.py and polars_steps.py print at their end, as JSON."""
import json, resource, time


def report(left, rows, start):
    """Interactions after each step, rows of the split 8:1:1, seconds since `start` (time.perf_counter) and peak memory."""
    valid, test = rows * 8 // 10, rows * 9 // 10
    result = {
        "interactions": left,
        "rows": {"train": valid, "valid": test - valid, "test": rows - test},
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result))
