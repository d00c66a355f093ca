#!/usr/bin/env bash
# Install a wheel into an empty environment, and run it outside the repository.
# Usage: tools/test_wheel.sh WHEEL
set -euo pipefail
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
"${PYTHON:-python3.11}" -m venv empty
empty/bin/pip install -q torch==2.13.0
empty/bin/pip install -q -c "$constraints" "$wheel"
empty/bin/assay --version
empty/bin/assay list --json list.json
grep -q neural-cleanse list.json
# The package data must be in the wheel: reference scores, templates and the schema.
empty/bin/python - <<'PY'
from importlib.resources import files
from pathlib import Path

import torch

import assay
from assay import report

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
images = torch.rand(64, 3, 4, 4)
audit = assay.audit(model, (images, torch.arange(64) % 5), shape=(3, 4, 4), variant_names=("full",), budget=5)
report.write(audit, Path("report"))
assert audit.verdict == "inconclusive", audit.reason
assert files("assay.report").joinpath("audit.schema.json").is_file()
assert files("assay.bench.leaderboard").joinpath("templates", "page.js").is_file()
PY
test -s report/report.html
echo "the wheel works in an empty environment"
