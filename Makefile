# ShopCat on AWS with Pulumi, and on this machine with its twin. `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
REQUIREMENTS ?= requirements-dev.txt
READY := $(VENV)/.ready-$(shell cat $(REQUIREMENTS) 2>/dev/null | sha256sum | cut -c1-12)
# The policy pack's own packages: its protobuf is another than the program's. policy/PulumiPolicy.yaml names the folder.
PACK := .venv-policy
PACK_READY := $(PACK)/.ready-$(shell cat policy/requirements.txt 2>/dev/null | sha256sum | cut -c1-12)
FROM_WHEELS = $(if $(WHEELS),$(if $(wildcard $(WHEELS)/*.whl),--no-compile --no-index --find-links=$(WHEELS)))

# A switch is on unless it is empty, 0, no or false.
on = $(filter-out 0 no false,$(1))

.DEFAULT_GOAL := help
.PHONY: help ready up down status env logs build image release releases pr pr-close pr-times bootstrap check lint types unit test test-engine test-twin bench faults

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): | $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed; name it with make PYTHON=python3.x'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes $(FROM_WHEELS) --requirement $(REQUIREMENTS)
	@touch $@

$(PACK_READY): policy/requirements.txt
	$(PYTHON) -m venv $(PACK)
	$(PACK)/bin/pip install --quiet --require-hashes $(FROM_WHEELS) --requirement policy/requirements.txt
	@touch $@

.PHONY: wheels pins
wheels: ## keep the packages' wheels in a folder: make wheels WHEELS=folder; make ready WHEELS=folder installs from it, each by its hash
	$(PYTHON) -m pip download --quiet --require-hashes --only-binary=:all: --dest $(WHEELS) --requirement $(REQUIREMENTS)

pins: $(READY) ## write pins.txt, with internet: checksums of Pulumi's CLI and plugins, and of what the twin needn't build then
	@$(RUN) -m twin.build.releases

ready: $(READY) ## the packages alone; make ready REQUIREMENTS=requirements.txt: only those of the Pulumi program

up: $(READY) ## everything ShopCat's production needs on this machine, ending in an answering URL
	@$(RUN) -m twin up

down: $(READY) ## remove every process, namespace, mount, cgroup and route that `make up` made
	@$(RUN) -m twin down

status: $(READY) ## each part of the twin, and whether it runs
	@$(RUN) -m twin status

env: $(READY) ## what to export for pulumi and kubectl by hand: eval "$(make -s env)"
	@$(RUN) -m twin env

logs: $(READY) ## the twin's logs; make logs PROCESS=node1-kubelet
	@$(RUN) -m twin logs $(PROCESS)

build: $(READY) ## build every program the twin needs into its cache
	@$(RUN) -m twin build

image: $(READY) ## build APP_SRC and push it to the twin's ECR: make image TAG=v1.2.0
	@$(RUN) -m twin image $(TAG)

release: $(READY) $(PACK_READY) ## rehearse a release of main on the twin: version, git tag, image, up; TAG=v1.2.0 releases a pushed tag
	@$(RUN) -m twin release $(TAG) $(if $(value MESSAGE),--message="$$RELEASE_MESSAGE")
# The message as it was given: a shell or make would read quotes, `$` and backslashes in it.
release: export RELEASE_MESSAGE = $(value MESSAGE)
unexport MESSAGE

pr: $(READY) $(PACK_READY) ## open or update a preview on the twin: make pr PR=123; TAG=sha takes a pushed image, FRESH=1 no cached layer
	@$(RUN) -m twin.scenarios.preview up $(PR) $(if $(TAG),--tag $(TAG)) $(if $(call on,$(FRESH)),--fresh)

pr-close: $(READY) ## destroy a preview on the twin: make pr-close PR=123
	@$(RUN) -m twin.scenarios.preview close $(PR)

pr-times: $(READY) $(PACK_READY) ## open, update and close previews on the twin; writes each step's seconds into docs/pipeline.md
	@$(RUN) -m twin.scenarios.pipeline_times

releases: $(READY) ## every release on the twin: tag, revision, state, colour, when, who, commit, digest
	@eval "$$($(RUN) -m twin env)" && $(RUN) -m infra.commands.releases

.PHONY: undo
undo: $(READY) ## all users back to the former release on the twin at once, where its pods are kept; `pulumi up -s prod` goes on
	@eval "$$($(RUN) -m twin env)" && $(RUN) -m infra.commands.undo

bootstrap: $(READY) ## once per AWS account: state buckets, keys, release ledger, GitHub's OIDC provider
	@$(RUN) -m infra.commands.bootstrap

.PHONY: aws-check github-check upgrade-check
aws-check: $(READY) ## before the first update of an AWS account: quotas, plan, zones, names, DNS, versions; changes nothing
	@$(RUN) -m infra.commands.aws_check

.PHONY: takeover-plan
takeover-plan: $(READY) ## what a takeover from Terraform and Helm would do: make takeover-plan STATE=terraform.tfstate; HELM=file, OFFLINE=1; changes nothing
	@$(RUN) -m infra.commands.takeover_plan $(if $(HELM),--helm "$(HELM)") $(if $(call on,$(OFFLINE)),--offline) "$(STATE)"

.PHONY: policy policy-pack
policy: $(READY) ## judge what production and a preview declare by the rules in policy/; asks AWS nothing
	@$(RUN) -m policy.check

policy-pack: $(PACK_READY) ## the policy pack's packages, for pulumi preview --policy-pack policy

.PHONY: cost
cost: $(READY) ## write docs/cost.md: what the settings cost, from prices with sources (infra/commands/cost); asks AWS nothing
	@$(RUN) -m infra.commands.cost --write docs/cost.md

.PHONY: takeover-dns
takeover-dns: $(READY) ## users from the old load balancer to the new one by weighted DNS: make takeover-dns STEP=status; split, weight WEIGHT=1, back, finish
	@$(RUN) -m infra.commands.takeover_dns "$(or $(STEP),status)" $(if $(WEIGHT),"$(WEIGHT)") $(if $(OLD),--old "$(OLD)") $(if $(BAKE),--bake "$(BAKE)") $(if $(ACCEPT),--accept "$(ACCEPT)")

github-check: $(READY) ## GitHub's settings: reviews, environment, Actions, tags, labels, variables; needs GITHUB_TOKEN; changes nothing
	@$(RUN) -m pipeline.github_check

upgrade-check: $(READY) ## what is behind or waits, and the next step of each; changes nothing
	@$(RUN) -m infra.commands.upgrade_check

check: lint types unit ## lint, types and unit tests, fewer generated ones than in make test: two or three minutes

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/zizmor --offline --quiet --no-progress .github
	$(VENV)/bin/hadolint app_docker/Dockerfile
	@$(RUN) -m twin.build.actionlint

types: $(READY)
	$(VENV)/bin/mypy

unit: $(READY)
	SHOPCAT_QUICK=1 $(VENV)/bin/pytest -q -n 4 tests/unit

# Files begin in the order of the folders, which is the longest first.
test: $(READY) $(PACK_READY) ## everything it needs, then all tests
	@$(RUN) -m twin build
	$(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 tests

bench: $(READY) ## six ways to release in four accidents, every request counted; docs/bench.html; ALL=1: eleven accidents; FULL=1: a million requests
	@$(RUN) -m bench $(if $(call on,$(FULL)),--full) $(if $(call on,$(ALL)),--all)

.PHONY: bench-previews
bench-previews: $(READY) $(PACK_READY) ## as many previews as fit, opened, updated and closed while production releases under load; docs/previews.md
	@$(RUN) -m bench.previews

.PHONY: isolation
isolation: $(READY) ## everything a pull request's identity must not do, tried; table in docs/isolation.md
	SHOPCAT_ISOLATION=1 $(VENV)/bin/pytest tests/twin/test_network_policies.py tests/twin/test_siege.py tests/engine/test_isolation.py

.PHONY: audit
AUDIT := .venv-audit
audit: $(READY) ## checkov on what the twin's production declares and on the patched old repository; after make up
	@test -x $(AUDIT)/bin/checkov || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/pip install --quiet --require-hashes --requirement requirements-audit.txt; }
	@eval "$$($(RUN) -m twin env)" && pulumi stack export -s prod --file $(AUDIT)/prod.json && \
		$(RUN) -m tests.audit $(AUDIT)/bin/checkov $(AUDIT)/prod.json

.PHONY: takeover
takeover: $(READY) ## legacy/ moved over to this program under load, each step counted; needs the real Terraform; half an hour; docs/takeover-rehearsal.md
	@$(RUN) -m bench.takeover

.PHONY: kills
kills: $(READY) ## updates killed after each call of AWS, and production's second life after it was destroyed; an hour
	SHOPCAT_KILLS=1 $(VENV)/bin/pytest tests/engine/test_killed.py tests/twin/test_second_life.py

.PHONY: upgrades
upgrades: $(READY) ## nodes, add-ons, charts, Kubernetes, database and certificate upgraded under load, under an hour; docs/upgrades.md
	SHOPCAT_UPGRADES=1 $(VENV)/bin/pytest tests/twin/test_upgrades.py

.PHONY: passwords
passwords: $(READY) ## two releases and a rotation under load: which passwords the database takes before and after; docs/passwords.md
	SHOPCAT_PASSWORDS=1 $(VENV)/bin/pytest tests/twin/test_passwords.py

.PHONY: alarms
alarms: $(READY) ## a fault for each alarm under load, and a release that no alarm tells of; docs/alarms.md
	SHOPCAT_ALARMS=1 $(VENV)/bin/pytest tests/twin/test_alarms.py

.PHONY: restore-drill restore state-versions
restore-drill: $(READY) ## backups restored beside production, tried by a release that no user reaches, taken away; AT=moment; docs/restore.md
	@$(RUN) -m pipeline.restore_drill $(if $(AT),"$(AT)")

restore: $(READY) ## the same on a twin of its own under load, then users moved to a restored database and back; docs/restore.md
	@$(RUN) -m bench.restore $(if $(call on,$(DRILL)),--drill)

state-versions: $(READY) ## the versions of production's state file; VERSION=id makes one the present one
	@$(RUN) -m infra.commands.state_versions $(if $(VERSION),"$(VERSION)")

faults: $(READY) ## the fault matrix under load, hours; CELL=text for the cells whose name holds it; table in docs/faults.md
	SHOPCAT_FAULTS="$(or $(CELL),all)" $(VENV)/bin/pytest tests/twin/test_faults.py
