"""Files of a release: they agree with the package and with each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import dense_imb
from dense_imb import losses
from tests.limits import HANG_SECONDS

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "dense_imb" / "runs" / "weights"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(
    path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# libraries that conda-forge has under another name
_CONDA_NAMES = {
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "docstring-parser": "docstring_parser",
}


def load(name: str | Path) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def pythons() -> list[str]:
    """Return the versions of Python in the classifiers."""
    pattern = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    return [found[1] for one in PROJECT["classifiers"] if (found := pattern.fullmatch(one))]


def matrix_rows(job: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the operating system and the Python of each run of a job with a matrix."""
    matrix = job["strategy"]["matrix"]
    rows = [(system, python) for system in matrix["os"] for python in matrix["python"]]
    return rows + [(row["os"], row["python"]) for row in matrix["include"]]


def steps_of(workflow: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_the_version_is_one():
    citation, recipe = load("CITATION.cff"), load("conda/recipe.yaml")
    assert citation["version"] == recipe["context"]["version"] == dense_imb.__version__


def test_a_dated_release_has_its_date_in_the_citation():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    if headings[0] != "Unreleased":
        version, date = re.fullmatch(r"(\S+) \((\d{4}-\d\d-\d\d)\)", headings[0]).groups()
        assert version == dense_imb.__version__
        assert str(load("CITATION.cff")["date-released"]) == date


def test_the_citation_agrees_with_the_package():
    citation = load("CITATION.cff")
    assert [one["name"] for one in citation["authors"]] == [
        one["name"] for one in PROJECT["authors"]
    ]
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]


def test_the_citation_has_five_sources():
    sources = load("CITATION.cff")["references"]
    assert len({source["title"] for source in sources}) == 5
    for source in sources:
        assert source.keys() & {"doi", "url", "repository-code"}, source["title"]
        for author in source["authors"]:
            assert author["family-names"], source["title"]
            assert author["given-names"], source["title"]
    named = set(re.findall(r"\w+Loss\b", " ".join(source["notes"] for source in sources)))
    assert {"ACBMSELoss", "HardMiningLoss", "ComplementCrossEntropyLoss"} <= named
    assert named <= set(losses.__all__)


def test_the_recipe_has_the_dependencies_of_the_package():
    required = set()
    for text in PROJECT["dependencies"]:
        name, floor = text.split(">=")
        required.add(f"{_CONDA_NAMES.get(name, name)} >={floor}")
    recipe = load("conda/recipe.yaml")
    _, *libraries = recipe["requirements"]["run"]  # the first is Python
    assert set(libraries) == required
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license_file"] == PROJECT["license-files"]
    (entry,) = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(entry)]


def test_the_workflow_runs_every_python_of_the_classifiers():
    rows = matrix_rows(load(".github/workflows/tests.yml")["jobs"]["quick"])
    assert [python for system, python in rows if system == "ubuntu-latest"] == pythons()
    assert {python for system, python in rows if system == "macos-latest"} <= set(pythons())
    assert {system.split("-")[0] for system, _ in rows} == {"ubuntu", "macos"}
    assert {"Operating System :: MacOS", "Operating System :: POSIX :: Linux"} <= set(
        PROJECT["classifiers"]
    )
    assert PROJECT["requires-python"] == f">={pythons()[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_may_only_read_and_ends(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 180
    for step in steps_of(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", step["uses"])
        if "setup-python" in step.get("uses", "") and "matrix" not in str(step["with"]):
            assert step["with"]["python-version"] in pythons()


def test_workflows_call_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    called = {
        target
        for path in WORKFLOWS
        for step in steps_of(load(path))
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), flags=re.MULTILINE)
    }
    assert {"check", "test", "test-all", "docs", "dist"} <= called <= targets


def test_only_the_job_that_publishes_has_an_identity():
    jobs = load(".github/workflows/release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["environment"] == "release"
    assert not any("run" in step for step in jobs["publish"]["steps"])
    assert "permissions" not in jobs["build"]


def test_the_site_is_published_from_main_alone():
    jobs = load(".github/workflows/docs.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert "refs/heads/main" in jobs["publish"]["if"]
    assert not any("run" in step for step in jobs["publish"]["steps"])
    assert "permissions" not in jobs["build"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_form_asks_each_question_once(path):
    form = load(path)
    assert form["name"]
    assert form["description"]
    fields = [field["id"] for field in form["body"]]
    assert len(set(fields)) == len(fields)
    for page in re.findall(r"\b\w+\.md\b", path.read_text()):
        assert (ROOT / page).is_file()


def test_the_notices_name_every_network_of_the_package():
    notices = (ROOT / "NOTICES.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", notices, flags=re.MULTILINE))
    assert set(rows) == {path.name for path in WEIGHTS.iterdir()}
    for name, row in rows.items():
        card = (WEIGHTS / name / "README.md").read_text()
        package = re.search(r"package (\S+) (\d[\d.]*\d)", row)
        assert (package is None) == ("made by dense_imb" in row)
        if package:
            assert package[0] in card
            assert f"\n## {package[1]}\n" in notices  # its licence


def test_the_image_is_ten_lines():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert len(lines) <= 10
    (base,) = [line for line in lines if line.startswith("FROM ")]
    assert re.fullmatch(r"FROM python:(3\.\d+)-slim", base)[1] in pythons()
    (extras,) = re.findall(r"/src\[(.*?)\]", "\n".join(lines))
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    copied = (ROOT / ".dockerignore").read_text()
    for name in ("dense_imb", "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        assert f"\n!{name}\n" in copied


def test_wheel_and_sdist_hold_what_they_should(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, the build backend, is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=HANG_SECONDS,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 3e6
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"dense_imb-{dense_imb.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"dense_imb", information}
    assert "dense_imb/py.typed" in names
    assert {f"{information}/licenses/{name}" for name in PROJECT["license-files"]} <= names
    for network in WEIGHTS.iterdir():
        assert f"dense_imb/runs/weights/{network.name}/best.safetensors" in names

    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.stat().st_size < 4e6
    with tarfile.open(archive) as sdist:
        sizes = {member.name.partition("/")[2]: member.size for member in sdist}
    assert max(sizes.values()) < 500_000
    needed = ("conftest.py", "tests/test_release.py", "docs/hits.md", "CITATION.cff", "NOTICES.md")
    assert {*needed, "experiments/README.md", ".github/workflows/tests.yml"} <= set(sizes)
