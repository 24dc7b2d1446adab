# make demo   a monitored fleet of lab hosts on this machine; GRAFANA_ARCHIVE=/path/of/its/archive for the real Grafana
# make test   lint, unit tests, the rules' tests, the lab's own, the exporter's, gpu-stress', and all Molecule scenarios
# make lint, make unit, make rules, make lab, make exporter, make stress, make molecule, make ubuntu, make sanity,
# make bench, make docs, make dashboards, make images, make gpu-stress (dist/gpu-stress.pyz), make shell, make clean
#
# demo, test and bench boot systemd machines, so they need root on Debian 12 or 13; they install what they need.
.DEFAULT_GOAL := help
SHELL := /bin/bash

export GPUFLEET_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gpufleet
VENV := $(GPUFLEET_CACHE)/venv-$(shell sha256sum requirements-dev.txt | cut -c1-12)
TOOLS := $(VENV)/.installed
PACKAGES := python3-venv openssh-client git systemd-container mmdebstrap nftables iproute2 xz-utils zstd \
            debian-archive-keyring gcc libc6-dev gpg gpgconf gpg-agent rpm createrepo-c
# Those that take longest come first, so that the others run beside them.
LONGEST := native_service default alerts dcgm network front_door
SCENARIOS := $(LONGEST) $(filter-out $(LONGEST),$(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml))))
# Tests without a host, a file of them on each processor; programs under test mostly wait, so there is room for more.
EACH_PROCESSOR := --numprocesses logical --dist loadfile
WAITING := --numprocesses 4
SANITY_SKIPS := no-assert replace-urlopen pylint
COLLECTION := ansible_collections.gpufleet.monitoring

export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help demo test lint sanity unit rules images lab exporter stress molecule ubuntu bench docs dashboards \
        gpu-stress shell clean distclean packages

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' $(firstword $(MAKEFILE_LIST))

# After a reset, Molecule asks the lab for its hosts again: what a reboot or a kill has ended is started.
demo: $(TOOLS) packages
	molecule reset
	molecule converge
	@python3 molecule/lab/lab.py demo default

# What needs no lab is done while its images are built; the rest watches the clock, and has the processors to itself.
test: $(TOOLS) packages
	@$(MAKE) --no-print-directory --jobs=2 --output-sync images lint unit rules
	@$(MAKE) --no-print-directory lab exporter stress molecule

lint: $(TOOLS)
	yamllint --strict .
	ansible-lint --offline --strict
	ruff check .
	ruff format --check .
	MYPYPATH=.collections mypy -p $(COLLECTION).plugins
	cd files && mypy --config-file ../pyproject.toml -p gpufleet
	mypy -p dashboards
	cd molecule/lab && mypy --config-file ../../pyproject.toml -p gpufleet_lab

# Ansible's own tests, on what operators get. Not a part of lint: each of them installs tools of its own from the
# internet. What is skipped, and why, is in docs/development.md.
sanity: $(TOOLS)
	@build=$$(mktemp -d) && trap 'rm -rf "$$build"' EXIT && \
	tree=$$build/ansible_collections/gpufleet/monitoring && mkdir -p "$$tree" && \
	ansible-galaxy collection build --output-path "$$build" && \
	tar --extract --file "$$build"/*.tar.gz --directory "$$tree" && cd "$$tree" && \
	version=$$(python3 -c 'import sys; print("{}.{}".format(*sys.version_info))') && \
	ansible-test sanity --python "$$version" $(SANITY_SKIPS:%=--skip-test %)

unit: $(TOOLS)
	pytest $(EACH_PROCESSOR) tests/unit

# The rules and the dashboards' queries, by promtool and Prometheus, whether somebody serves every metric that they read,
# and what Alertmanager makes of alerts.
rules: $(TOOLS) packages
	timeout 600 pytest $(EACH_PROCESSOR) tests/rules tests/alertmanager

# The GPU exporter as a program, against simulated GPUs.
exporter: $(TOOLS) packages
	timeout 900 pytest $(WAITING) tests/gpu_exporter

# gpu-stress as a program, against simulated GPUs and stand-ins for PyTorch and CuPy.
stress: $(TOOLS) packages
	timeout 300 pytest $(WAITING) tests/gpu_stress

# The program itself: one file, for docs/gpu_stress.md.
gpu-stress: $(TOOLS)
	@mkdir -p dist
	ansible localhost -m ansible.builtin.copy -a "mode=0755 dest=$(CURDIR)/dist/gpu-stress.pyz \
	  src={{ lookup('gpufleet.monitoring.zipapp', 'gpu_stress').url | urlsplit('path') }}"

# The pages that are written from code.
docs: $(TOOLS)
	for page in docs/*.py; do python3 $$page > $${page%.py}.md || exit 1; done

# The dashboards that the role grafana provisions.
dashboards: $(TOOLS)
	python3 -m dashboards

# All that the scenarios' labs are made of, into the cache.
images: $(TOOLS) packages
	python3 molecule/lab/lab.py fill

# The lab's own tests; those with hosts are one file.
lab: $(TOOLS) packages
	timeout 600 pytest $(WAITING) --dist loadfile molecule/lab

# Three at a time: much of a test is waiting, so that two leave a third of two processors idle; more would wait for them,
# and so would tests that watch the clock. All that one says is shown when it has ended, and those that failed are last.
molecule: $(TOOLS) packages
	@logs=$$(mktemp -d) && trap 'rm -rf "$$logs"' EXIT && export logs && \
	printf '%s\n' $(SCENARIOS) | xargs -P 3 -I{} sh -c \
	  'molecule test -s {} >"$$logs/{}" 2>&1 || mv "$$logs/{}" "$$logs/{}.failed"; cat "$$logs/{}"*' && \
	{ ! ls "$$logs" | grep '[.]failed$$' >&2; }

# Scenarios on Ubuntu 22.04 and 24.04: all but those that nobody has tried there. Not a part of test: the images come from
# Ubuntu's archive, which a machine with a Debian mirror alone does not reach.
ubuntu: export GPUFLEET_LAB := ubuntu
ubuntu: SCENARIOS := $(filter-out alerts ansible_core,$(SCENARIOS))
ubuntu: molecule

# BENCH="--only workers --peer DIRECTORY", for example.
bench: $(TOOLS) packages
	python3 tests/bench/run.py $(BENCH)

# A shell with the tools on its PATH.
shell: $(TOOLS)
	@exec $(SHELL)

# Ends every lab that was made from this checkout; the cache of images and releases stays.
clean: $(TOOLS)
	python3 molecule/lab/lab.py down --all
	rm -rf dist .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis *.tar.gz

distclean: clean
	rm -rf $(GPUFLEET_CACHE)

packages:
	@missing=$$(for name in $(PACKAGES); do \
	  [ "$$(dpkg-query --show --showformat '$${db:Status-Status}' $$name 2>/dev/null)" = installed ] || echo $$name; done); \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "The lab runs on Debian: there is no apt-get here." >&2; exit 1; }; \
	  [ "$$(id -u)" = 0 ] || { echo "The lab boots systemd machines: run this as root." >&2; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq --no-install-recommends $$missing >/dev/null; \
	fi

# The last line's file says that the install was not cut. Named after what it is made of, so its age says nothing.
$(TOOLS): | requirements-dev.txt
	@python3 -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory packages
	rm -rf $(VENV)
	mkdir -p $(GPUFLEET_CACHE)
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
