import json
import re
from pathlib import Path

from comity.report import numbers
from comity.report.page import page
from comity.report.terminal import lines

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "compare-json.md"


def test_the_documented_example_is_json_that_can_be_reported():
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1])
    assert "Zurich" in page(example)
    assert "Zurich" in "\n".join(line.plain for line in lines(example))


def test_every_key_and_metric_is_documented(sample):
    text, results = PAGE.read_text(encoding="utf-8"), sample.full()
    keys = {*results, *results["question"], *results["settings"], *results["learning"], *results["revealed"][0]}
    keys |= {*results["parties"]["Zurich"], *numbers.METRICS}
    keys |= {*results["groups"]["age"], *results["groups"]["age"]["ways"]["joint"], *results["fair"], "why"}
    keys |= {*results["unseen"]["Bern"], *results["cost"], *results["cost"]["parties"]["Bern"], *results["card"]}
    keys |= {*results["protection"], *results["protection"]["leaves"][0]}
    assert not [key for key in sorted(keys) if not re.search(rf"[`\".]{key}[`\".]", text)]
