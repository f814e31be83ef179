# Targets: all demo check check-asan check-tsan live fuzz sim chaos mutants up down status kill start bench format lint clean
#          (README.md tells more)
#
# Everything that is made lies below build/ (with SANITIZE=asan, tsan or fuzz below build/asan/ ...). CFLAGS
# and LDFLAGS are the caller's, V=1 shows the commands. A new service is one word here:
SERVICES = order-svc inventory-svc payment-svc

B = build$(if $(SANITIZE),/$(SANITIZE))
PKGS = rdkafka jansson libpq uuid libmicrohttpd gnutls libcurl hiredis
# Asked for at their first use only: on a bare machine pkg-config is not there before $(B)/packages is.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)
CHECK_LIBS = $(eval CHECK_LIBS := $(shell pkg-config --libs check))$(CHECK_LIBS)

WARN = -std=c11 -Wall -Wextra -Werror -Wno-missing-field-initializers -Wshadow -Wstrict-prototypes \
       -Wmissing-prototypes -Wformat=2 -Wtrampolines -Wimplicit-fallthrough
HARD = $(if $(SANITIZE)$(findstring -O0,$(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2) \
       -fstack-protector-strong -fstack-clash-protection -fno-strict-overflow \
       -fno-delete-null-pointer-checks $(if $(filter x86_64,$(shell uname -m)),-fcf-protection=full)
SANE_asan = -fsanitize=address,undefined
SANE_tsan = -fsanitize=thread
SANE_fuzz = -fsanitize=address,undefined,fuzzer$(if $(filter %.o,$@),-no-link) -Wno-unknown-warning-option -Wno-format-nonliteral
SANE = $(if $(SANITIZE),$(SANE_$(SANITIZE)) -fno-sanitize-recover=all -fno-omit-frame-pointer \
       -Wno-error)# gcc 12 warns of more than there is, under the sanitizers
,    = ,
CC   = $(if $(filter fuzz,$(SANITIZE)),clang-14,gcc)# libFuzzer is clang's
COMPILE = $(CC) $(WARN) -D_GNU_SOURCE -Ilibsaga -Ischemas -I$(B)/gen/$(*D) $(INC) $(PKG_CFLAGS) \
          -O3 -g -pthread -fPIE $(HARD) $(SANE) -MMD -MP $(CFLAGS)
LINK = $(CC) -pthread -pie $(SANE) -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(CFLAGS) $(LDFLAGS)
say  = @$(if $(V),,printf '  %-5s %s\n' $1 '$2' &&)

objs    = $(patsubst %.c,$(B)/obj/%.o,$(wildcard $(1:%=%/*.c)))
LIB     = $(call objs,schemas $(if $(filter tsan,$(SANITIZE)),test/tsan)) $(B)/libsaga.a
RULES   = $(filter-out %/main.o,$(call objs,$(SERVICES)))# the services without their main()
CTL     = $(filter-out %/main.o,$(call objs,libsaga/sagactl))
FOLDERS = libsaga libsaga/sagactl schemas $(SERVICES) test/lib test/unit test/sim test/live test/fuzz test/tsan test/chaos test/bench
SUITES  = $(foreach t,unit sim live chaos,$(if $(wildcard test/$t/*.c),$(B)/test/$t))
TOOLS   = $(addprefix $(B)/bin/kafka-,topics console-producer console-consumer consumer-groups get-offsets)
BINS    = $(patsubst %/main.c,$(B)/bin/%,$(wildcard $(SERVICES:%=%/main.c))) \
          $(if $(wildcard libsaga/sagactl/*.c),$(B)/bin/sagactl) $(TOOLS)
# The services once more for the suite failpoints: what passes a failpoint is compiled a second time.
POINTED = $(shell grep -l SAGA_FAILPOINT $(wildcard libsaga/*.c $(SERVICES:%=%/*.c)))
FAILING = $(SERVICES:%=$(B)/failpoint/bin/%)
BENCHES = $(patsubst test/bench/%.c,$(B)/bench/%,$(wildcard test/bench/*.c))
FUZZERS = $(patsubst test/fuzz/fuzz_%.c,build/fuzz/test/fuzz_%,$(wildcard test/fuzz/fuzz_*.c))
C_FILES = $(wildcard $(FOLDERS:%=%/*.[ch]))
SCRIPTS = $(shell grep -lIsE '^\#(!.*bash| shellcheck shell=bash)' .ci/* $$(find deploy test -type f 2>/dev/null))

MAKEFLAGS += --no-builtin-rules --no-print-directory $(if $(MAKELEVEL:0=),,-j$(shell nproc))
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all demo fuzzers check check-asan check-tsan live fuzz sim chaos mutants up down status kill start bench format lint clean

all: $(BINS) $(FAILING) $(SUITES) $(BENCHES)
up demo: $(BINS)
	@deploy/local/$@
down status:
	@deploy/local/$@
kill start: # S=payment, or order, inventory, kafka, postgres, redis
	@deploy/local/$@ $(S)
check: all lint fuzzers
	@test/check
check-asan check-tsan:
	+@$(MAKE) SANITIZE=$(@:check-%=%) all
	@test/check $(@:check-%=%)
live: all # TIMES=n: so many times in a row
	@test/check live $(TIMES)
fuzz: fuzzers # FUZZ=name: this one; SECONDS=n of each
	@test/fuzz/run $(or $(SECONDS),60) $(FUZZ)
fuzzers:
	+@$(MAKE) SANITIZE=fuzz $(FUZZERS)
bench: $(BINS) $(BENCHES)
	@test/bench/run
sim: $(filter %/sim,$(SUITES)) # SEEDS=n, SEED=n, EXPLORE=full
	@$(B)/test/sim
chaos: all # ORDERS=20000 SEED= AWAY=600
	@test/chaos/run
mutants: # M=name, or of a list in test/mutants
	@test/mutants/run $(M)
lint: $(B)/packages
	@test/lint '$(SCRIPTS)' '$(C_FILES)'
format: $(B)/packages
	clang-format -i $(C_FILES)
clean:
	@deploy/local/clean

$(B)/packages: deploy/local/packages
	@deploy/local/packages $(SANITIZE) && mkdir -p $(@D) && touch $@
$(B)/libsaga.a: $(call objs,libsaga)
	$(call say,ar,$@)rm -f $@ && $(AR) rcs $@ $^
$(foreach s,$(SERVICES),$(eval $(B)/bin/$s: $(call objs,$s)))
$(foreach s,$(SERVICES),$(eval $(B)/failpoint/bin/$s: $(patsubst %.c,$(B)/failpoint/obj/%.o,$(filter \
  libsaga/% $s/%,$(POINTED))) $(filter-out $(POINTED:%.c=$(B)/obj/%.o),$(call objs,$s))))
$(B)/bin/sagactl: $(call objs,libsaga/sagactl)
$(SUITES): $(B)/test/%: $(RULES) $(call objs,test/lib)
$(foreach t,unit sim live chaos,$(eval $(B)/test/$t: $(call objs,test/$t)))
$(B)/test/unit: $(CTL)
$(B)/test/sim: LDFLAGS += -Wl,--wrap=malloc,--wrap=realloc,--wrap=free# test/sim/region.c
$(BENCHES): $(B)/bench/%: $(B)/obj/test/bench/%.o $(RULES)
$(FUZZERS): build/fuzz/test/%: $(B)/obj/test/fuzz/%.o $(addprefix $(B)/obj/test/,fuzz/fuzz.o lib/agree.o lib/test.o) $(RULES)
$(SUITES): EXTRA = $(CHECK_LIBS)
$(B)/test/unit: EXTRA += $(addprefix -Wl$(,)--wrap=,malloc calloc realloc ctl_next)# test_memory.c, test_sagactl.c
$(filter-out $(TOOLS),$(BINS)) $(FAILING) $(SUITES) $(BENCHES) $(FUZZERS): $(LIB)
	$(call say,link,$@)mkdir -p $(@D) && $(LINK) $(filter %.o,$^) $(filter %.a,$^) -o $@ $(PKG_LIBS) $(EXTRA)
$(TOOLS): deploy/local/kafka-tool
	@mkdir -p $(@D) && ln -sf '$(CURDIR)/$<' $@

$(B)/obj/test/%: INC = -I. -Itest/lib $(SERVICES:%=-I%)
$(B)/failpoint/obj/%: INC = -DSAGA_FAILPOINTS
define compiled # $1: a folder; two targets of one pattern rule would be made together
$1/%.o: %.c Makefile | $(B)/packages
	$$(call say,cc,$$<)mkdir -p $$(@D) && $$(COMPILE) -c $$< -o $$@
endef
$(foreach d,$(B)/obj $(B)/failpoint/obj,$(eval $(call compiled,$d)))
# The text of sql/*.sql as C strings; a question mark is escaped because C11 still knows trigraphs.
$(B)/gen/%/sql.h: Makefile
	@mkdir -p $(@D) && { printf '#include <stddef.h>\nstatic const char *const migrations[] = {\n'; for f in \
	  $(filter %.sql,$^); do sed 's/[\\"?]/\\&/g; s/.*/"&\\n"/' $$f; echo ,; done; echo 'NULL};'; } >$@
define has_sql # $1: a folder with sql/; the folder itself is named because a file may vanish
$(B)/gen/$1/sql.h: $1/sql $(sort $(wildcard $1/sql/*.sql))
$(call objs,$1) $(patsubst %.c,$(B)/failpoint/obj/%.o,$(wildcard $1/*.c)): $(B)/gen/$1/sql.h
endef
$(foreach f,$(patsubst %/sql,%,$(wildcard $(FOLDERS:%=%/sql))),$(eval $(call has_sql,$f)))

-include $(shell find $(B)/obj $(B)/failpoint/obj -name '*.d' 2>/dev/null)
