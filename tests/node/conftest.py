"""Which running things do the tests on the node share: one node per run, its CA, and the operator from its chart."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterator

import pytest

from tests.node import requirements, site, stories
from tests.node.ca import PodCA
from tests.node.node import Node, bed_images
from tests.node.site import NodeSite

_LACKS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Look once at what this machine can do."""
    config.stash[_LACKS] = requirements.missing()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Say it below everything else, where nobody overlooks it."""
    yield
    if lacks := config.stash.get(_LACKS, []):
        terminalreporter.write_sep("!", "SKIPPED: every test on a real node", red=True, bold=True)
        terminalreporter.write_line(requirements.message(lacks), red=True)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Node]:
    """The node of this test run."""
    if lacks := pytestconfig.stash.get(_LACKS, []):
        pytest.skip(requirements.message(lacks))
    started = Node(tmp_path_factory.mktemp("node"))
    started.start(bed_images())
    yield started
    started.stop()


@pytest.fixture(scope="session")
def ca(node: Node, tmp_path_factory: pytest.TempPathFactory) -> PodCA:
    """The CA of this test run, which issues for exactly as long as it is asked to."""
    made = PodCA(node, tmp_path_factory.mktemp("ca"), backdate="0s")
    made.start()
    return made


@pytest.fixture(scope="session")
def certrenewal(node: Node, ca: PodCA) -> NodeSite:
    """The operator, two replicas, installed by its chart."""
    return site.install(node, ca)


@pytest.fixture
def shop(node: Node, certrenewal: NodeSite, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace named for the test, with the CA's roots and the programs of the apps."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:32].strip("-")
    name = f"{readable}-{secrets.token_hex(2)}"
    stories.open_shop(node, name)
    yield name
    node.delete("namespaces", "", name)
