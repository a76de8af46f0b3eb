"""Run the tests on the oldest and on the newest releases of the libraries, and print a table.

    python -m tests.versions FOLDER
    python -m tests.versions FOLDER --only floors --tests tests/losses tests/metrics
    python -m tests.versions FOLDER --audit

FOLDER gets two environments of some 7 GB: `floors`, with each `>=` of pyproject.toml taken as
`==`, and `newest`. They are made by uv where it is installed, by venv and pip otherwise, and used
again by a later call. `--audit` asks the index of packages for known holes in both, by pip-audit.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ("floors", "newest")
_PYTHON = "3.11"  # of `requires-python`

# advisories about functions that dense_imb never calls, without a repaired release at the floor
ACCEPTED = {
    "CVE-2025-3000": "torch.jit.script",
    "CVE-2026-4538": "torch.export.load, which reads only the file that `export` has just written",
    "CVE-2026-69112": "accelerate.load_checkpoint_in_model",
}

_INSTALLED = """
import json, platform
from importlib.metadata import distributions
releases = {one.metadata["Name"]: one.version for one in distributions()}
print(json.dumps({"python": platform.python_version(), **releases}))
"""


class Counts(NamedTuple):
    """Tests of one environment."""

    passed: int
    failed: int
    skipped: int
    minutes: float


def plain(name: str) -> str:
    """Return the name of a package as indices compare it.

    Example:
        >>> plain("Docstring_Parser")
        'docstring-parser'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def floors(project: Mapping[str, object] | None = None) -> dict[str, str]:
    """Return the oldest supported release of each library that pyproject.toml names.

    Example:
        >>> floors({"dependencies": ["torch>=2.10", "dense-imb[test]"]})
        {'torch': '2.10'}
    """
    if project is None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    lines = [*project["dependencies"], *(line for lines in optional.values() for line in lines)]
    oldest = {}
    for line in lines:
        name = re.match(r"[\w.-]+", line)[0]
        if plain(name) == "dense-imb":
            continue
        floor = re.search(r">=\s*([\w.]+)", line)
        if floor is None:
            raise ValueError(f"Expected a floor for {name} in pyproject.toml, got {line!r}.")
        oldest[plain(name)] = floor[1]
    return oldest


def make_environment(folder: Path, *, python: str, extras: str, oldest: Mapping[str, str]) -> Path:
    """Make an environment, or bring it up to date; return its Python.

    Args:
        folder: folder of the environment.
        python: interpreter to make it with.
        extras: extras of dense_imb to install, separated by commas.
        oldest: releases to install in place of the newest.
    """
    own, uv = folder / "bin" / "python", shutil.which("uv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not own.exists():
        make = [uv, "venv", "--seed", "--python", python] if uv else [python, "-m", "venv"]
        subprocess.run([*make, folder], check=True)
    constraints = folder.with_suffix(".constraints")
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in oldest.items()))
    pip = [uv, "pip", "install", "--python", own] if uv else [own, "-m", "pip", "install"]
    what = ["--upgrade", "--constraint", constraints, "--editable", f"{ROOT}[{extras}]"]
    subprocess.run([*pip, *what], check=True)
    return own


def installed(python: Path) -> dict[str, str]:
    """Return the releases of Python and of all libraries in an environment."""
    done = subprocess.run([python, "-c", _INSTALLED], capture_output=True, text=True, check=True)
    return {plain(name): version for name, version in json.loads(done.stdout).items()}


def run_tests(python: Path, paths: Sequence[str], results: Path, processes: int) -> Counts:
    """Run the quick tests in an environment; pytest prints what fails."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    if processes > 1:
        command += ["-n", str(processes), "--dist", "loadgroup"]
    results.unlink(missing_ok=True)
    subprocess.run([*command, f"--junitxml={results}", *paths], cwd=ROOT, check=False)
    return count(results.read_text())


def count(report: str) -> Counts:
    """Return the counts in a JUnit report.

    Example:
        >>> count('<a><testsuite tests="9" errors="1" failures="2" skipped="3" time="60"/></a>')
        Counts(passed=3, failed=3, skipped=3, minutes=1.0)
    """
    sums = dict.fromkeys(("tests", "errors", "failures", "skipped", "time"), 0.0)
    for suite in ElementTree.fromstring(report).iter("testsuite"):
        for name in sums:
            sums[name] += float(suite.get(name, 0))
    failed = int(sums["errors"] + sums["failures"])
    skipped = int(sums["skipped"])
    return Counts(int(sums["tests"]) - failed - skipped, failed, skipped, sums["time"] / 60)


def audit(folder: Path, releases: Mapping[str, str]) -> bool:
    """Tell whether pip-audit knows every release and no hole in any; it prints what it finds."""
    own = folder / "audit" / "bin" / "python"
    if not own.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "audit"], check=True)
        subprocess.run([own, "-m", "pip", "install", "--quiet", "pip-audit"], check=True)
    listed = folder / "audited.txt"
    ours = ("dense-imb", "python")  # no releases of the index
    lines = [f"{name}=={version}" for name, version in releases.items() if name not in ours]
    listed.write_text("\n".join(lines) + "\n")
    ignored = [word for name in ACCEPTED for word in ("--ignore-vuln", name)]
    # strict: a release that the index does not know is no clean one
    command = [own, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "-r", listed]
    return subprocess.run([*command, *ignored], check=False).returncode == 0


def table(
    oldest: Mapping[str, str],
    releases: Mapping[str, Mapping[str, str]],
    counts: Mapping[str, Counts],
    clean: Mapping[str, bool],
) -> str:
    """Return the table of libraries, tests and audits, in Markdown.

    Args:
        oldest: floor of each library.
        releases: releases in each environment.
        counts: tests of each environment.
        clean: result of the audit of each environment.
    """
    names = list(releases)
    rows = [["", "floor", *names]]
    for library, floor in {"python": _PYTHON, **oldest}.items():
        found = [releases[name].get(library, "-") for name in names]
        if set(found) != {"-"}:
            rows.append([library, floor, *found])
    for what in ("passed", "failed", "skipped"):
        rows.append([what, "", *(str(getattr(counts[name], what)) for name in names)])
    if clean:
        rows.append(["pip-audit", "", *("clean" if clean[name] else "not clean" for name in names)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environments, run the tests, print the table; 0 if all passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the environments")
    parser.add_argument("--only", choices=ENVIRONMENTS, help="make one of the two environments")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments")
    parser.add_argument("--extras", default="test", help="extras to install, comma-separated")
    parser.add_argument("--tests", nargs="*", default=[], metavar="PATH", help="tests to run")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="pytest's -n")
    parser.add_argument("--audit", action="store_true", help="look for known holes by pip-audit")
    options = parser.parse_args(arguments)
    folder, oldest = options.folder.resolve(), floors()
    releases, counts, clean = {}, {}, {}
    for name in [options.only] if options.only else ENVIRONMENTS:
        python = make_environment(
            folder / name,
            python=options.python,
            extras=options.extras,
            oldest=oldest if name == "floors" else {},
        )
        releases[name] = installed(python)
        if options.audit:
            clean[name] = audit(folder, releases[name])
        results = folder / f"{name}.xml"
        counts[name] = run_tests(python, options.tests, results, options.processes)
    print(table(oldest, releases, counts, clean))
    failed = any(one.failed or not one.passed for one in counts.values())
    return int(failed or not all(clean.values()))


if __name__ == "__main__":
    sys.exit(main())
