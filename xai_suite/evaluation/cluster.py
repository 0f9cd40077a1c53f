"""Chunks of work on a Dask cluster: few are under way at a time, and a lost worker loses none."""

import os
import re
from collections.abc import Callable, Iterator

SECONDS_TO_CONNECT, SECONDS_FOR_A_WORKER = 10, 60


def on_cluster(address: str, compute: Callable, chunks: dict) -> Iterator[tuple]:
    """`(key, compute(chunk))` of each chunk, in the order in which they finish.

    What a worker had begun when it was lost is computed by another one.

    Args:
        address: of the scheduler, such as `tcp://host:8786`.
        compute: a function of one chunk, from a module that workers can import; `functools.partial`
            is fine.
        chunks: by key.

    Raises:
        ValueError: no address.
        ConnectionError: nobody answers there, there is no worker, or the scheduler was lost.
        RuntimeError: several workers died while they had the same chunk.
        Whatever `compute` raises.
    """
    if not re.fullmatch(r"[a-z]+://.+:\d+", address):
        raise ValueError(f"a scheduler's address is like tcp://host:8786, not {address!r}")
    from distributed import CancelledError, Client, KilledWorker, as_completed

    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address} ({type(error).__name__})"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_FOR_A_WORKER)
        except TimeoutError:
            raise ConnectionError(
                f"the Dask scheduler at {address} has had no worker for {SECONDS_FOR_A_WORKER}"
                " seconds"
            ) from None
        waiting, under_way, finished = iter(chunks), {}, as_completed(loop=client.loop)

        def send():
            # Asked again each time: the workers of a batch system come one after another.
            most = 2 * sum(client.nthreads().values()) + 2
            while len(under_way) < most:
                if (key := next(waiting, None)) is None:
                    return
                # A name of its own: a scheduler that is still there must not answer with an earlier
                # call's result.
                future = client.submit(
                    compute, chunks[key], key=f"chunk-{key}-{os.urandom(8).hex()}"
                )
                under_way[future.key] = key
                finished.add(future)

        send()
        for future in finished:
            key = under_way.pop(future.key)
            try:
                result = future.result()
            except KilledWorker:
                raise RuntimeError(
                    f"chunk {key}: one worker after another died while it computed this one"
                ) from None
            except CancelledError:
                raise ConnectionError(f"the Dask scheduler at {address} was lost") from None
            yield key, result
            send()
