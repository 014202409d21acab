# quire: prepares language models for devices. `make help` lists the targets.

CC      ?= cc
PREFIX  ?= /usr/local
DESTDIR ?=
B       ?= build

PKGS    := openblas zlib libcjson libpcre2-8 libutf8proc
VERSION := 0.1.0

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla
CSTD    := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_FILE_OFFSET_BITS=64
# -ffp-contract=off: the same bits on every machine; no -ffast-math, no -march=native
OPT     ?= -O2 -g
FPFLAGS := -ffp-contract=off -fno-math-errno
OPENMP  ?= -fopenmp
INC     := -Ilibquant -I.
SAN     ?=
CFLAGS_ALL = $(CSTD) $(OPT) $(FPFLAGS) $(OPENMP) $(WARN) $(SAN) $(CFLAGS)
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   = $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LDLIBS_ALL = $(PKG_LIBS) -lm -lpthread $(OPENMP) $(SAN) $(LDFLAGS)

LIB_SRC := $(sort $(wildcard libquant/*/*.c) $(wildcard formats/*.c) $(wildcard calib/*.c))
CMD_SRC := $(sort $(wildcard cmd/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/obj/%.o)
CMD_OBJ := $(CMD_SRC:%.c=$(B)/obj/%.o)
UNIT    := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT:tests/unit/%.c=$(B)/tests/%)
FUZZ    := $(sort $(wildcard tests/fuzz/fuzz_*.c))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all
all: $(B)/bin/quire ## build the commands into build/bin

# kernels for an instruction set are compiled for it; everything else runs anywhere
$(B)/obj/libquant/kernel/avx2.o $(B)/obj/libquant/kernel/search_avx2.o: ISA := $(if $(filter x86_64 amd64,$(shell uname -m)),-mavx2 -mfma -mf16c)
$(B)/obj/libquant/kernel/avx512.o $(B)/obj/libquant/kernel/search_avx512.o: ISA := $(if $(filter x86_64 amd64,$(shell uname -m)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c)

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(ISA) $(INC) $(PKG_CFLAGS) -DQUIRE_VERSION='"$(VERSION)"' -MMD -MP -c $< -o $@

$(B)/libquire.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(B)/bin/quire: $(CMD_OBJ) $(B)/libquire.a
	@mkdir -p $(@D)
	$(CC) $(OPT) $(SAN) $^ $(LDLIBS_ALL) -o $@

$(B)/tests/%: tests/unit/%.c $(B)/libquire.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(INC) $(PKG_CFLAGS) -MMD -MP -MF $@.d $< $(B)/libquire.a -lcmocka $(LDLIBS_ALL) -o $@

.PHONY: check
check: deps ## install what is missing, build and run every test
	@$(MAKE) --no-print-directory all $(UNIT_BIN)
	@B=$(B) tests/run

.PHONY: deps
deps: ## check for the libraries and install what is missing
	@tests/deps

.PHONY: clean
clean: ## remove what was built
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(UNIT_BIN:=.d)
