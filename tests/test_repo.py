"""Rules about the repository itself that no linter knows."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAMS = ("controlplane", "node", "operators")


def test_packages_hold_a_charter_and_nothing_else() -> None:
    for program in PROGRAMS:
        for path in ROOT.glob(f"{program}/**/__init__.py"):
            if "generated" in path.parts:
                continue
            tree = ast.parse(path.read_text())
            assert ast.get_docstring(tree), f"{path}: say what belongs here and what does not"
            assert len(tree.body) == 1, f"{path}: only a docstring; import from the module itself"


def test_every_folder_of_code_has_a_charter() -> None:
    for program in PROGRAMS:
        for path in ROOT.glob(f"{program}/**/*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent}: no charter"


def test_no_module_is_a_drawer_for_leftovers() -> None:
    banned = {"common", "utils", "helpers", "const", "exceptions", "misc"}
    for program in PROGRAMS:
        for path in ROOT.glob(f"{program}/**/*.py"):
            assert path.stem not in banned, f"{path}: a helper lives beside its user"


def test_lock_files_name_no_index() -> None:
    for path in ROOT.glob("requirements/*.txt"):
        assert not re.search(r"https?://", path.read_text()), f"{path}: names an index"


def test_the_readme_maps_every_folder() -> None:
    text = (ROOT / "README.md").read_text()
    made = {"build", "dist"}
    for path in ROOT.iterdir():
        shown = path.is_dir() and not path.name.startswith((".", "__")) and path.name not in made
        if shown and path.suffix != ".egg-info":
            assert f"`{path.name}/`" in text, f"{path.name}/ is not in the README"
