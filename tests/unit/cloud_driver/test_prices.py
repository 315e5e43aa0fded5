"""The table of prices and what is computed from it."""

import re

import prices
import pytest

from tests.conftest import ROOT


def test_the_table_names_its_source_and_its_date():
    table = prices.table()
    assert table["source"] == "AWS public price list"
    assert re.fullmatch(r"20\d\d-\d\d", str(table["known"]))
    text = prices.FILE.read_text()
    assert "NOT fetched" in text
    assert "unknown" in text


def test_both_regions_know_every_price_that_is_asked_for():
    table = prices.table()
    regions = table["regions"]
    assert set(regions) == {"eu-west-3", "us-east-1"}
    assert regions["eu-west-3"].keys() == regions["us-east-1"].keys()
    for region in regions.values():
        for wanted in table["platforms"].values():
            assert {wanted["master"], wanted["workers"]} <= region["sizes"].keys()
        flat = [*region["sizes"].values(), *region["volumes"].values()]
        flat += [value for value in region.values() if not isinstance(value, dict)]
        assert all(isinstance(value, float) and value > 0 for value in flat)


def test_the_default_platform(platform):
    told = prices.monthly(platform)
    assert {line["what"]: line["usd_month"] for line in told["lines"]} == {
        "master t3.medium": 34.46,
        "2 × worker t3.small": 34.46,
        "3 × volume of 8 GB (gp3)": 2.23,
        "1 × public IPv4 address": 3.65,
        "bucket, 1 GB at most": 0.02,
    }
    assert told["usd_month"] == 74.81
    assert told["source"] == "AWS public price list, eu-west-3, known 2025-01"
    assert prices.monthly(prices.sized(platform, "default")) == told


@pytest.mark.parametrize(("which", "more"), [("small", -1), ("large", 1)])
def test_the_other_sizes(platform, which, more):
    usd = prices.monthly(prices.sized(platform, which))["usd_month"]
    assert (usd - prices.monthly(platform)["usd_month"]) * more > 20
    assert platform["master"]["size"] == "t3.medium"


def test_each_way_out_of_the_workers_has_its_price(platform):
    base = prices.monthly(platform)["usd_month"]
    platform["network"]["egress"] = "nat-gateway"
    nat = prices.monthly(platform)
    assert nat["usd_month"] == pytest.approx(base + 36.5 + 3.65, abs=0.01)
    assert "what goes through the NAT gateway (0.05 a GB)" in nat["left_out"]
    platform["network"]["egress"] = "public"
    public = prices.monthly(platform)["usd_month"]
    assert public == pytest.approx(base + 2 * 3.65, abs=0.01)
    platform["dns"]["zone"] = "example.org"
    assert prices.monthly(platform)["usd_month"] == pytest.approx(public + 0.5, abs=0.01)


def test_what_is_not_in_the_table_is_unknown_and_so_is_the_sum(platform):
    platform["workers"]["size"] = "m9.huge"
    told = prices.monthly(platform)
    assert {line["what"]: line["usd_month"] for line in told["lines"]}["2 × worker m9.huge"] == (
        "unknown"
    )
    assert told["usd_month"] == "unknown"
    platform["aws"]["region"] = "mars-1"
    assert {line["usd_month"] for line in prices.monthly(platform)["lines"]} == {"unknown"}
    assert prices.nat_gateway(platform) is None
    assert prices.size(platform, "t3.small") is None


@pytest.mark.parametrize("which", ["small", "default", "large"])
def test_the_guide_shows_what_is_computed(platform, which):
    guide = (ROOT / "docs/aws.md").read_text()
    master, workers, usd = re.findall(rf"^\| {which} \| (.*) \| (.*) \| (.*) \|$", guide, re.M)[0]
    sized = prices.sized(platform, which)
    assert master == sized["master"]["size"]
    assert workers == f"{sized['workers']['count']} × {sized['workers']['size']}"
    assert float(usd) == prices.monthly(sized)["usd_month"]
