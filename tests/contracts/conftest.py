"""Servers for the contract tests, started when a test first needs one and stopped at the end."""

import pytest

from . import servers


@pytest.fixture(scope="session", autouse=True)
def _stop_servers():
    yield
    servers.stop_all()


@pytest.fixture
def chat_url(models) -> str:
    """Give the address of a real llama.cpp server with the packaged chat model."""
    return servers.llama(models["chat"], "chat")


@pytest.fixture
def embedding_url(models) -> str:
    """Give the address of a real llama.cpp server with the packaged embedding model."""
    return servers.llama(models["embedding"], "embedding")


@pytest.fixture
def ollama(chat_url, embedding_url):
    """Give (address, fixture) of a strict Ollama in front of both."""
    fixture = servers.OllamaFixture(
        {"smollm2:latest": ("chat", chat_url), "all-minilm:latest": ("embedding", embedding_url)}
    )
    with servers.serving(fixture) as server:
        fixture.server = server
        yield server.url, fixture
