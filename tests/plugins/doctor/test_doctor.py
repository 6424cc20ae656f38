"""`eflm doctor` on this machine: every check reports a finding."""

from __future__ import annotations

import json


def test_every_check_reports_a_finding(eflm, tmp_path):
    done = eflm("doctor", "--device=cpu", "--json", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "eflm.doctor/1"
    assert document["environment"]["device"] == "cpu"
    findings = {finding["name"]: finding for finding in document["findings"]}
    assert {"quiet", "clock", "sampler", "peak float32", "memory bandwidth", "memory kinds"} <= set(findings)
    assert any(name.startswith("energy by") for name in findings)
    assert findings["peak float32"]["value"] > 1e9
    assert 1e8 < findings["memory bandwidth"]["value"] < 1e13
    assert findings["sampler"]["value"] > 10
    assert all(finding["detail"] for finding in findings.values())
    for finding in findings.values():
        assert finding["status"] in ("ok", "limited", "missing")


def test_a_device_that_does_not_exist_is_refused(eflm):
    done = eflm("doctor", "--device=cuda:7")
    assert done.returncode == 2
    assert "cuda:7" in done.stderr
