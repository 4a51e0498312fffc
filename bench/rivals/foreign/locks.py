"""Python's lock libraries, by lines: `NUMBER open`, `NUMBER acquire CLIENT NAME TTL_MS`, `NUMBER release ACQUIRE`,
`NUMBER close CLIENT`. Each is answered with `NUMBER ok` when it is done, or with `NUMBER error WHY`. Requests run in
threads, as many at a time as there are."""

import concurrent.futures
import sys
import threading

LIBRARY, ADDRESS = sys.argv[1:3]
HOST, PORT = ADDRESS.rsplit(":", 1)


class RedisPy:
    def __init__(self):
        import redis

        self.redis = redis.Redis(host=HOST, port=int(PORT), max_connections=2000)
        self.redis.ping()

    def acquire(self, name, ttl):
        # Another thread releases it than the one that took it.
        lock = self.redis.lock(name, timeout=ttl, thread_local=False)
        lock.acquire()
        return lock

    def close(self):
        self.redis.close()


class PythonRedisLock(RedisPy):
    def acquire(self, name, ttl):
        import redis_lock

        lock = redis_lock.Lock(self.redis, name, expire=max(1, int(ttl)))
        lock.acquire()
        return lock


class Kazoo:
    def __init__(self):
        from kazoo.client import KazooClient

        self.client = KazooClient(hosts=ADDRESS, timeout=30)
        self.client.start()

    def acquire(self, name, ttl):
        lock = self.client.Lock("/kazoo/" + name)
        lock.acquire()
        return lock

    def close(self):
        self.client.stop()
        self.client.close()


LIBRARIES = {"redis-py": RedisPy, "python-redis-lock": PythonRedisLock, "kazoo": Kazoo}

clients, locks = {}, {}
output = threading.Lock()


def do(number, verb, *words):
    if verb == "open":
        clients[number] = LIBRARIES[LIBRARY]()
    elif verb == "acquire":
        client, name, ttl = words
        locks[number] = clients[client].acquire(name, int(ttl) / 1000)
    elif verb == "release":
        locks.pop(words[0]).release()
    elif verb == "close":
        clients.pop(words[0]).close()
    else:
        raise ValueError(verb)


def answer(number, *words):
    try:
        do(number, *words)
        said = f"{number} ok\n"
    except Exception as error:
        said = f"{number} error {type(error).__name__}: {error}".replace("\n", " ") + "\n"
    with output:
        sys.stdout.write(said)
        sys.stdout.flush()


def main():
    threads = concurrent.futures.ThreadPoolExecutor(max_workers=2000)
    for line in sys.stdin:
        threads.submit(answer, *line.split())


main()
