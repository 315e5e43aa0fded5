# F1-Vote. `make help` lists the targets; CLOUD=aws leaves the lab out.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up plan status rotate certificates down audit backup restore drill logs unlock shell check unit e2e test bench bench-app lock fmt

CLOUD ?= lab
ifeq ($(CLOUD),lab)
LAB := python -m lab
# The lab's API takes any key; a real one has no business there.
export AWS_ACCESS_KEY_ID := lab
export AWS_SECRET_ACCESS_KEY := lab
unexport AWS_SESSION_TOKEN AWS_PROFILE
DOWN := python -m lab down
else
LAB := : no lab:
DOWN := salt-run --out=summary platform.down confirm='$(CONFIRM)'
endif
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
EVENTS := $(CURDIR)/.state/events.jsonl
PYTHONWARNINGS ?= ignore
export PYTHONWARNINGS

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

up: .venv/lab.stamp  ## Make it so: from nothing (or anything) to a counted vote
	@$(LAB) prepare
	@mkdir -p .state && rm -f $(EVENTS)
	@F1_EVENTS=$(EVENTS) salt-run --out=summary state.orchestrate orch.up
	@$(LAB) ready

plan: .venv/lab.stamp  ## Show what `up` would change; touches nothing, exit code 2 if something differs
	@salt-run --out=summary platform.plan

status: .venv/lab.stamp  ## Show what is wrong, then machines, nodes, app, votes, drift, backup, locks; exit code 1 if something is
	@salt-run platform.status

rotate: .venv/lab.stamp  ## Give the agents another join token; the old one is refused afterwards
	@salt-run --out=summary state.orchestrate orch.rotate_token

certificates: .venv/lab.stamp  ## Make K3s's certificates anew, one node at a time (they are prolonged by themselves, too)
	@salt-run --out=summary state.orchestrate orch.rotate_certificates

down: .venv/lab.stamp  ## Remove everything `up` made
	@$(DOWN)

audit: .venv/lab.stamp  ## Hold the cluster against the CIS benchmark: number, verdict, evidence; exit code 1 if one fails
	@salt-run --out=audit audit.cluster

backup: .venv/lab.stamp  ## Back everything up, sealed: on the master, in .state/backup and in the bucket
	@salt-run --out=summary state.orchestrate orch.backup

restore: .venv/lab.stamp  ## Put a backup back (FROM=file or name; the newest), compared vote by vote
	@salt-run --out=summary state.orchestrate orch.restore pillar='{"restore": {"from": "$(FROM)"}}'

drill: .venv/lab.stamp  ## Lose everything and get it back: backup, down, up, restore, compared; with its times
	@# `down` forgets .state and the bucket: the key and the copies are kept beside until the end.
	@kept=build/drill; told=""; mkdir -p build; \
	if [ -e $$kept ]; then echo "$$kept is left of a drill that failed: move it to .state/backup, then 'make restore'"; exit 1; fi; \
	step() { local began=$$SECONDS; "$$@"; told+="$$(printf '%-10s %4d s' "$${!#}" $$((SECONDS - began)))"$$'\n'; }; \
	step $(MAKE) --no-print-directory backup; \
	cp -a .state/backup $$kept; \
	step $(MAKE) --no-print-directory down; \
	step $(MAKE) --no-print-directory up; \
	rm -rf .state/backup && cp -a $$kept .state/backup; \
	step $(MAKE) --no-print-directory restore; \
	rm -rf $$kept; \
	printf '\n%sin all      %4d s\n' "$$told" $$SECONDS

logs: .venv/lab.stamp  ## Show the last log lines of every part
	@$(LAB) logs
	@salt-run platform.logs

unlock: .venv/lab.stamp  ## Show who holds a lock; with WHAT=orch.up, break that one if its process is gone
	@salt-run $(if $(WHAT),lock.break '$(WHAT)',lock.show)

shell: .venv/lab.stamp  ## Open a shell on the master
	@ssh -F .state/ssh/config f1-master

check: .venv/dev.stamp  ## Lint, types, formats: no machine is touched, under a minute
	@ruff check . && ruff format --check .
	@mypy app/f1vote lab
	@mypy --scripts-are-modules $$(git ls-files 'salt/ext/**/*.py' 'salt/cloud/*.py')
	@yamllint -s .
	@git ls-files '*.sh' .ci/run | xargs shellcheck
	@git ls-files '*.sls' | xargs salt-lint

unit: .venv/dev.stamp  ## Every test that needs no machine
	@# One process each: the lab's moto and the driver's are set up otherwise, and Playwright keeps an
	@# event loop running.
	@pytest tests/unit/cloud
	@pytest tests/app/browser
	@pytest -m 'not lab and not e2e' --ignore tests/unit --ignore tests/app/browser --ignore tests/cloud tests
	@pytest --cov --cov-fail-under=90 --ignore tests/unit/cloud tests/unit

e2e: .venv/dev.stamp  ## The whole road in the lab, from outside
	@pytest -x tests/e2e/test_[1-9]_*.py tests/cloud tests/e2e/test_99_again.py

test: check unit e2e  ## Everything: check, unit, then the platform end to end

bench: .venv/dev.stamp  ## Measure the road, side by side with a bare cluster; writes docs/evidence
	@python -m lab.bench

bench-app: .venv/dev.stamp  ## Measure the vote app alone, side by side with an empty handler; ten minutes
	@python -m lab.bench app

lock: .venv/dev.stamp  ## Refresh the locks and show what changed
	@./requirements/lock.sh
	@git --no-pager diff --stat -- requirements app/requirements.txt salt/pillar/versions.sls

fmt: .venv/dev.stamp
	@ruff format . && ruff check --fix .

.venv/lab.stamp: requirements/lab.txt lab/bootstrap.sh
	@./lab/bootstrap.sh requirements/lab.txt
	@touch $@

.venv/dev.stamp: requirements/dev.txt lab/bootstrap.sh
	@./lab/bootstrap.sh requirements/dev.txt
	@touch .venv/lab.stamp $@
