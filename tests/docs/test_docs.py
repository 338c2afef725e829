"""The documentation names what the code has: every reason, annotation, option and metric."""

from __future__ import annotations

import re
from pathlib import Path

import click
import prometheus_client
import yaml

from certrenewal import cli, metrics
from certrenewal.domain import annotation
from certrenewal.domain.asking import Refusal
from certrenewal.domain.reasons import Reason
from tests.testbed import pages

DOCS = Path(__file__).parents[2] / "docs"


def first_column(page: str) -> set[str]:
    """The code in the first cell of each table row of a page."""
    return set(re.findall(r"^\| `([^`]+)`", (DOCS / page).read_text(), re.MULTILINE))


def test_every_reason_has_its_row() -> None:
    assert first_column("reasons.md") == {reason.value for reason in Reason}


def test_every_annotation_has_its_row() -> None:
    names = {key.removeprefix(annotation.PREFIX) for key in annotation.ON_SECRETS | annotation.ON_WORKLOADS}

    assert first_column("annotations.md") == names


def test_every_refusal_of_a_token_has_its_row() -> None:
    page = (DOCS / "tokens.md").read_text()

    assert {refusal.value for refusal in Refusal} <= set(re.findall(r"`([A-Za-z]+)`", page))


def test_every_option_and_variable_has_its_row() -> None:
    page = (DOCS / "operations.md").read_text()
    command = cli.main.commands["operator"]

    for option in command.params:
        assert isinstance(option, click.Option)
        assert f"| `{option.opts[0]}` | `{option.envvar}` |" in page


def test_every_metric_has_its_row() -> None:
    page = (DOCS / "operations.md").read_text()
    ours = [name for name in prometheus_client.REGISTRY._names_to_collectors if name.startswith("certrenewal_")]

    assert metrics.LEADER
    for name in {re.sub(r"_(created|bucket|count|sum)$", "", name) for name in ours}:
        assert f"`{name}`" in page or f"`{name}_total`" in page, name


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    ours = {name for name in prometheus_client.REGISTRY._names_to_collectors if name.startswith("certrenewal_")}
    chart = DOCS.parent / "charts" / "certrenewal"

    assert metrics.LEADER
    for page in (chart / "templates" / "prometheusrule.yaml", chart / "dashboards" / "certrenewal.json"):
        named = set(re.findall(r"certrenewal_[a-z_]+(?=\{)", page.read_text()))
        assert named <= ours, page.name
        assert {"certrenewal_hooks_total", "certrenewal_revocations_total"} <= named, page.name


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_quickstart_takes_nine_commands_each_in_a_block_of_its_own() -> None:
    blocks = [block for there in pages.sections("quickstart.md").values() for block in there if block.kind == "sh"]

    assert [len(block.commands) for block in blocks] == [1] * 9
    assert [block.mark for block in blocks] == ["not-run", *[""] * 8]


def test_the_quickstart_builds_the_image_that_the_chart_runs() -> None:
    chart = yaml.safe_load((DOCS.parent / "charts" / "certrenewal" / "Chart.yaml").read_text())

    assert f"docker build --tag certrenewal:{chart['appVersion']} ." in (DOCS / "quickstart.md").read_text()


def test_output_on_a_page_stands_for_one_with_other_figures() -> None:
    shown = pages.Block("text", "", "NAME   AGE\nweb    2026-11-25T09:14:02Z 1/1\n")

    assert shown.is_told_by("waiting …\nNAME  AGE\nweb   2027-01-02T03:04:05Z   2/2\n")
    assert not shown.is_told_by("NAME  AGE\napi   2027-01-02T03:04:05Z   2/2\n")
    assert not shown.is_told_by("web   2027-01-02T03:04:05Z   2/2\nNAME  AGE\n")
