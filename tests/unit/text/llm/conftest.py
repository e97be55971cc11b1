import pytest

from slowfast.text.llm.client import Client, Patience, Sampling, Server


@pytest.fixture
def make_client(fake_llm):
    """A client of the fake server that pauses for no time."""

    def make(*, retries=2, timeout_seconds=5.0, backoff_seconds=0.0, stop=None, **sampling):
        return Client(
            Server(base_url=fake_llm.url, api_key=fake_llm.KEY),
            Sampling(**{"model": "fake", "temperature": 0.0, "seed": 3, "max_tokens": 500} | sampling),
            patience=Patience(timeout_seconds=timeout_seconds, retries=retries, backoff_seconds=backoff_seconds),
            stop=stop,
            jitter=lambda: 1.0,
        )

    return make
