import base64
import gzip
import itertools
from pathlib import Path

import yaml

from charts import EXAMPLE, ROOT, example, pack


def test_the_example_holds_the_chart_as_it_is() -> None:
    written = EXAMPLE.read_text()
    content = yaml.safe_load(written)["spec"]["chartContent"]
    packed = base64.b64decode(content)
    # Compared unpacked: another zlib may press the same bytes together in another way.
    assert gzip.decompress(packed) == gzip.decompress(pack(ROOT / "charts" / "hello"))
    assert written == example(packed)


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    def chart(folder: Path, *names: str) -> Path:
        for name in names:
            (folder / "web").mkdir(parents=True, exist_ok=True)
            (folder / "web" / name).write_text(name)
        return folder / "web"

    one = pack(chart(tmp_path / "one", "Chart.yaml", "values.yaml"))
    two = pack(chart(tmp_path / "two", "values.yaml", "Chart.yaml"))
    assert one == two


def test_every_value_of_the_chart_is_explained() -> None:
    lines = (ROOT / "charts" / "hello" / "values.yaml").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if line.strip() and not line.strip().startswith("#"):
            assert above.strip().startswith("#"), line
