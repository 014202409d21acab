# quire: prepares language models for devices. `make help` lists the targets.

CC      ?= cc
PREFIX  ?= /usr/local
DESTDIR ?=
B       ?= build

PKGS    := openblas zlib libcjson libpcre2-8 libutf8proc
VERSION := 0.2.0

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla
CSTD    := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_FILE_OFFSET_BITS=64
# -ffp-contract=off: the same bits on every machine; no -ffast-math, no -march=native
OPT     ?= -O2 -g
FPFLAGS := -ffp-contract=off -fno-math-errno
OPENMP  ?= -fopenmp
INC     := -Ilibquant -I.
SAN     ?=
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
CFLAGS_ALL = $(CSTD) $(OPT) $(FPFLAGS) $(OPENMP) $(WARN) $(SAN) $(INC) $(PKG_CFLAGS) -DQUIRE_VERSION='"$(VERSION)"' $(CFLAGS)
LDLIBS_ALL = $(PKG_LIBS) -lm -lpthread $(OPENMP) $(SAN) $(LDFLAGS)

LIB_SRC := $(sort $(wildcard libquant/*/*.c libquant/*/*/*.c) $(wildcard formats/*.c) $(wildcard calib/*/*.c))
CMD_SRC := $(sort $(wildcard cmd/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/obj/%.o)
CMD_OBJ := $(CMD_SRC:%.c=$(B)/obj/%.o)
UNIT    := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT:tests/unit/%.c=$(B)/tests/%)
FUZZ    := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ:tests/fuzz/%.c=$(B)/fuzz/%)
BENCH   := $(sort $(wildcard tests/bench/*.c))
BENCH_BIN := $(BENCH:tests/bench/%.c=$(B)/bench/%)
TEST_SRC := $(UNIT) $(FUZZ) $(BENCH)

# V=1 shows whole command lines; -s shows nothing
SILENT := $(findstring s,$(filter-out --%,$(firstword -$(MAKEFLAGS))))
Q       := $(if $(V),,@)
SAY      = $(if $(V)$(SILENT),@:,@printf '  %-5s %s\n' $(1) $(2))
SUBMAKE  = +@$(MAKE) --no-print-directory

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all
all: $(B)/bin/quire ## build the commands into build/bin

# kernels for an instruction set are compiled for it; everything else runs anywhere
X86 := $(filter x86_64-% amd64-%,$(shell $(CC) -dumpmachine))
$(B)/obj/libquant/kernel/avx2.o $(B)/obj/libquant/kernel/%avx2.o: ISA := $(if $(X86),-mavx2 -mfma -mf16c)
$(B)/obj/libquant/kernel/avx512.o $(B)/obj/libquant/kernel/avx512vnni.o $(B)/obj/libquant/kernel/%avx512.o: ISA := $(if $(X86),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c)
$(B)/obj/libquant/kernel/avx512vnni.o: ISA += $(if $(X86),-mavx512vnni)

$(B)/obj/libquant/kernel/product_amx.o: ISA := $(if $(X86),-mamx-tile -mamx-bf16 -mavx512bf16 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma)

# the fuzzer learns little from comparisons in here, and they are the most
$(B)/obj/libquant/base/%.o $(B)/obj/libquant/codec/%.o: QUIET := $(if $(findstring fuzzer,$(SAN)),-fno-sanitize-coverage=trace-cmp)

.PHONY: have-libraries
have-libraries:
	@$(if $(PKG_LIBS),:,echo "some libraries are missing; run: make deps" >&2; exit 1)

$(B)/obj/%.o: %.c Makefile | have-libraries
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) $(ISA) $(QUIET) -MMD -MP -c $< -o $@

$(B)/libquire.a: $(LIB_OBJ)
	@rm -f $@
	$(call SAY,AR,$@)
	$(Q)ar rcs $@ $^

$(B)/bin/quire: $(CMD_OBJ) $(B)/libquire.a
	@mkdir -p $(@D)
	$(call SAY,LINK,$@)
	$(Q)$(CC) $(OPT) $(SAN) $^ $(LDLIBS_ALL) -o $@

$(B)/tests/%: tests/unit/%.c $(B)/libquire.a
	@mkdir -p $(@D)
	$(call SAY,TEST,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -MF $@.d $< $(B)/libquire.a -lcmocka $(LDLIBS_ALL) -o $@

# the commands' own parsers, for the fuzzer
$(B)/libcmd.a: $(filter-out $(B)/obj/cmd/main.o,$(CMD_OBJ))
	@rm -f $@
	$(call SAY,AR,$@)
	$(Q)ar rcs $@ $^

# FUZZ_MAIN is -fsanitize=fuzzer, or the driver that only replays a corpus
FUZZ_MAIN ?= tests/fuzz/replay.c
$(B)/fuzz/%: tests/fuzz/%.c $(B)/libcmd.a $(B)/libquire.a
	@mkdir -p $(@D)
	$(call SAY,FUZZ,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -MF $@.d $< $(FUZZ_MAIN) $(B)/libcmd.a $(B)/libquire.a $(LDLIBS_ALL) -o $@

$(B)/bench/%: tests/bench/%.c $(B)/libquire.a
	@mkdir -p $(@D)
	$(call SAY,BENCH,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -MF $@.d $< $(B)/libquire.a $(LDLIBS_ALL) -o $@

.PHONY: test-programs fuzz-programs bench-programs objects
test-programs: $(UNIT_BIN)
fuzz-programs: $(FUZZ_BIN)
bench-programs: $(BENCH_BIN)
objects: $(LIB_OBJ) $(CMD_OBJ)
	$(Q)$(if $(TEST_SRC),$(CC) $(CFLAGS_ALL) -fsyntax-only $(TEST_SRC))

.PHONY: demo
demo: ## install what is missing, build, and run the main job on the demo model
	@tests/deps build
	$(SUBMAKE) -s all
	@QUIRE=$(B)/bin/quire examples/demo.sh

.PHONY: check
check: deps ## install what is missing, build and run every test
	$(SUBMAKE) all test-programs
	@B=$(B) tests/run $(TESTS)

.PHONY: check-fast
check-fast: deps ## build, and run the tests that take under two minutes together
	$(SUBMAKE) all test-programs
	@B=$(B) tests/run --fast $(TESTS)

.PHONY: deps
deps: ## check for the libraries and install what is missing
	@tests/deps

# how a man page or the completion is made: by the program, from its option tables
BIN_DIR  = $(DESTDIR)$(PREFIX)/bin
MAN_DIR  = $(DESTDIR)$(PREFIX)/share/man/man1
COMP_DIR = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
INC_DIR  = $(DESTDIR)$(PREFIX)/include

.PHONY: install
install: all ## install the program, links, man pages, completion and quire_read.h (PREFIX, DESTDIR)
	@mkdir -p $(BIN_DIR) $(MAN_DIR) $(COMP_DIR) $(INC_DIR)
	install -m 755 $(B)/bin/quire $(BIN_DIR)/quire
	install -m 644 include/quire_read.h $(INC_DIR)/quire_read.h
	@$(B)/bin/quire help --man >$(MAN_DIR)/quire.1
	@$(B)/bin/quire help --completion bash >$(COMP_DIR)/quire
	@set -e; for c in $$($(B)/bin/quire help --list); do \
		ln -sf quire $(BIN_DIR)/quire-$$c; ln -sf quire $(COMP_DIR)/quire-$$c; \
		$(B)/bin/quire help --man $$c >$(MAN_DIR)/quire-$$c.1; done
	@echo "installed $$($(BIN_DIR)/quire --version) in $(BIN_DIR)"

.PHONY: uninstall
uninstall: ## remove what install put there
	@for l in $(BIN_DIR)/quire-*; do \
		[ "$$(readlink "$$l")" = quire ] || continue; c=$${l##*/}; \
		rm -f "$$l" $(MAN_DIR)/$$c.1 $(COMP_DIR)/$$c; done
	rm -f $(BIN_DIR)/quire $(MAN_DIR)/quire.1 $(COMP_DIR)/quire $(INC_DIR)/quire_read.h

# a sanitizer's exit code must not be one of quire's own
export ASAN_OPTIONS ?= exitcode=99:detect_leaks=1:allocator_may_return_null=1
export UBSAN_OPTIONS ?= exitcode=99:print_stacktrace=1
export TSAN_OPTIONS ?= exitcode=99:suppressions=$(CURDIR)/tests/tsan.supp
export LSAN_OPTIONS ?= suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0
# clang where it is: gcc takes minutes to instrument the kernels. Without OpenMP then, on base/thread.c's own threads.
# With -O2, or whole pipelines would take many minutes.
SAN_CC    ?= $(shell echo 'int main(void){return 0;}' | clang -fsanitize=address -x c - -o /dev/null 2>/dev/null && echo clang || echo $(CC))
SAN_FLAGS = CC=$(SAN_CC) $(if $(findstring clang,$(SAN_CC)),OPENMP=)
UNDEFINED := undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZED  = +@tests/deps && $(MAKE) --no-print-directory B=$(1) OPT="-O2 -g" SAN="-fsanitize=$(2)" $(3) all test-programs && \
	B=$(1) SANITIZED=1 OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 TEST_TIMEOUT=1200 tests/run $(TESTS)

.PHONY: asan ubsan sanitize tsan
asan: ## the tests under the address sanitizer, in build-asan
	$(call SANITIZED,build-asan,address -fno-omit-frame-pointer,$(SAN_FLAGS))
ubsan: ## the tests under the undefined-behaviour sanitizer, in build-ubsan
	$(call SANITIZED,build-ubsan,$(UNDEFINED),$(SAN_FLAGS))
sanitize: ## the tests under both at once, in build-sanitize
	$(call SANITIZED,build-sanitize,address$(comma)$(UNDEFINED),$(SAN_FLAGS))
tsan: ## the tests under the thread sanitizer (threads of base/thread.c instead of OpenMP), in build-tsan
	$(call SANITIZED,build-tsan,thread,CC=$(SAN_CC) OPENMP=)
comma := ,

FAULTS ?= 0
.PHONY: faults
faults: all ## every command with one system call after the other failing; FAULTS=N for N of a kind, TESTS="fold compare" for a part
	@B=$(B) FAULTS=$(FAULTS) tests/faults/run $(TESTS)

FUZZ_SECONDS ?= 60
.PHONY: check-peers
check-peers: all ## run what is written in other programs (PYTHON, LLAMA: tests/peers/run says what they need)
	@B=$(B) tests/peers/run $(TESTS)

.PHONY: fuzz
fuzz: ## fuzz every parser for FUZZ_SECONDS (default 60) each; without clang's fuzzer replay the corpus
	+@B=build-fuzz FUZZ_SECONDS=$(FUZZ_SECONDS) MAKE="$(MAKE)" tests/fuzz/run $(TESTS)

SHAPE ?= 100m
.PHONY: bench
bench: ## measure speed against sgemm and copying; SHAPE=tiny|100m|1b (random weights), TESTS="verify quantize" for a part
	@tests/deps build
	$(SUBMAKE) -s all bench-programs
	@B=$(B) tests/bench/run --shape $(SHAPE) $(TESTS)

.PHONY: lint
lint: ## gcc and clang with warnings as errors, and the house rules
	+@MAKE="$(MAKE)" tests/lint

.PHONY: clean
clean: ## remove what was built
	rm -rf build build-*

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(UNIT_BIN:=.d) $(FUZZ_BIN:=.d) $(BENCH_BIN:=.d)
