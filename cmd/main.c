/* quire COMMAND ..., or quire-COMMAND ... through a link of that name. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "cmd/command.h"
#include "cmd/paths.h"
#include "formats/file.h"
#include "kernel/blas.h"
#include "kernel/kernel.h"
#include "kernel/product.h"

/* abort() goes on when this returns. */
static void aborted(int number)
{
	(void)number;
	file_cleanup();
}

static void write_all(const char *text)
{
	for (size_t n = strlen(text); n;) {
		ssize_t done = write(STDERR_FILENO, text, n);
		if (done <= 0)
			return;
		text += done;
		n -= (size_t)done;
	}
}

static void interrupted(int number)
{
	file_cleanup();
	const char *kept = number == SIGPIPE ? NULL : progress_kept();
	if (kept) {
		write_all(isatty(STDERR_FILENO) ? "\nquire: interrupted; " : "quire: interrupted; ");
		write_all(kept);
		write_all("\n");
	}
	_exit(128 + number);
}

/* A mapped file was cut short, or its disk fails. Anything else is a fault of ours, and ends as the system says. */
static void bus_error(int number, siginfo_t *info, void *context)
{
	const char *path = info->si_code == SI_USER ? NULL : mapped_at(info->si_addr);
	(void)context;
	file_cleanup();
	if (!path) {
		signal(number, SIG_DFL);
		raise(number);
		return;
	}
	write_all("quire: cannot read '");
	write_all(path);
	write_all("': it was cut short while it was read, or the disk fails\n");
	_exit(ERR_IO);
}

static bool finished; /* main ends the program, and no library */

/* OpenMP and BLAS end a program that they get no memory or no thread for, with a status that means something else here. */
static void ended_by_library(void)
{
	if (finished)
		return;
	file_cleanup();
	write_all("quire: out of memory: a library could not get memory or start a thread (--threads 1 needs fewest)\n");
	_exit(ERR_NOMEM);
}

/*
 * A closed pipe ends the program like an interruption, without a word. Ignored signals (nohup, background) stay ignored.
 * A limit on the size of files is an error like a full disk.
 */
static void catch_signals(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2 };
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct sigaction old, act = { .sa_handler = interrupted };
		sigfillset(&act.sa_mask);
		if (numbers[i] != SIGPIPE && !sigaction(numbers[i], NULL, &old) && old.sa_handler == SIG_IGN)
			continue;
		sigaction(numbers[i], &act, NULL);
	}
	struct sigaction bus = { .sa_sigaction = bus_error, .sa_flags = SA_SIGINFO };
	sigfillset(&bus.sa_mask);
	sigaction(SIGBUS, &bus, NULL);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGABRT, aborted);
	atexit(ended_by_library);
}

/* A row of kernels, of products, or both with a comma between. */
static bool select_rows(const char *name)
{
	char word[16];
	for (size_t n; *name; name += n + (name[n] == ',')) {
		n = strcspn(name, ",");
		if (n >= sizeof word)
			return false;
		memcpy(word, name, n);
		word[n] = '\0';
		bool kernel = kernels_select(word), product = products_select(word);
		if (!kernel && !product)
			return false;
	}
	return true;
}

static int choose_kernels(struct err *e)
{
	const char *name = getenv("QUIRE_CPU");
	if (select_rows(name ? name : ""))
		return ERR_OK;
	struct strbuf known = { 0 };
	const struct kernels *k;
	const struct product_row *p;
	for (unsigned i = 0; (k = kernels_row(i)); i++)
		if (!k->usable || k->usable())
			strbuf_printf(&known, ", %s", k->name);
	for (unsigned i = 0; (p = products_row(i)); i++)
		if (p->usable())
			strbuf_printf(&known, ", %s", p->name);
	err_set(e, ERR_USAGE, "QUIRE_CPU=%.40s cannot be used on this machine; use one of (or two, with a comma): auto%s", name,
		known.data ? known.data : "");
	strbuf_release(&known);
	return e->code;
}

/*
 * A thread that waits for the others burns a core that another program could use, and on a busy machine the others may
 * wait for that very core; and OpenBLAS takes a processor newer than itself for an old one, for which it multiplies five
 * times as slowly. The libraries read what they are told when they are loaded, which is before main: so the program starts
 * once more with its wishes in the environment. What the user has set stays.
 */
static void start_as_wished(char **argv)
{
	const struct {
		const char *name, *value;
	} wishes[] = {
		{ "OPENBLAS_CORETYPE", blas_better_core() },
#ifdef _OPENMP
		{ "OMP_WAIT_POLICY", "passive" },
		{ "GOMP_SPINCOUNT", "1000" },           /* 10 microseconds: as fast on an idle machine as spinning is */
		{ "OPENBLAS_THREAD_TIMEOUT", "14" },    /* builds of OpenBLAS with threads of their own; cycles, as a power of two */
#endif
	};
	size_t count = getenv("OMP_WAIT_POLICY") || thread_default() == 1 ? 1 : sizeof wishes / sizeof *wishes;
	bool again = false;
	for (size_t i = 0; i < count; i++)
		again |= wishes[i].value && !getenv(wishes[i].name) && !setenv(wishes[i].name, wishes[i].value, 0);
	if (again)
		execv("/proc/self/exe", argv); /* where it fails, as without /proc, the work is done all the same */
}

/* Everything a command printed must have arrived. */
static int close_output(struct err *e)
{
	errno = 0;
	if (fflush(stdout) || ferror(stdout))
		return err_system(e, "cannot write to standard output");
	return ERR_OK;
}

static int run_command(const struct command *c, int argc, char **argv, struct err *e)
{
	void *opts = calloc(1, c->options_size);
	struct string_list args = { .item = calloc((size_t)argc + 1, sizeof *args.item) };
	const struct common *common = opts;
	int rc = opts && args.item ? options_parse(c, argc, argv, opts, &args, e) : err_nomem(e);
	if (!rc && common->help) {
		struct strbuf text = { 0 };
		help_print(c, &text);
		rc = out_print(&text, e);
		strbuf_release(&text);
	} else if (!rc && !(rc = choose_kernels(e))) {
		thread_set((int)common->threads);
		rc = paths_check(c, opts, args.item, args.count, e);
		if (!rc)
			rc = memory_reserve(e);
		if (!rc)
			rc = c->run(opts, args.item, args.count, e);
		if (rc == ERR_GATE && !c->judges)
			rc = e->code = ERR_INPUT;
	}
	progress_end();
	if (opts)
		options_release(c, opts);
	free(opts);
	free(args.item);
	return rc;
}

static void print_error(const char *command, const struct err *e)
{
	struct strbuf line = { 0 };
	strbuf_printf(&line, "quire%s%s: ", command ? " " : "", command ? command : "");
	safe_text(&line, *e->message ? e->message : "failed without a reason; please report it");
	fflush(stdout);
	fprintf(stderr, "%s\n", line.data ? line.data : "quire: out of memory");
	strbuf_release(&line);
}

static int unknown_command(const char *name, struct err *e)
{
	const char *near = command_nearest(name);
	if (near)
		return err_set(e, ERR_USAGE, "unknown command '%.40s'; did you mean '%s'?", name, near);
	return err_set(e, ERR_USAGE, "unknown command '%.40s'; 'quire help' lists the commands", name);
}

static int print_version(struct err *e)
{
	struct strbuf text = { 0 };
	strbuf_puts(&text, "quire " QUIRE_VERSION "\n");
	int rc = out_print(&text, e);
	strbuf_release(&text);
	return rc;
}

/* quire's own options stand before the command. */
static int dispatch(int argc, char **argv, const struct command **c, struct err *e)
{
	const char *self = argc ? argv[0] : "quire", *slash = strrchr(self, '/');
	self = slash ? slash + 1 : self;
	if (!strncmp(self, "quire-", 6)) {
		*c = command_find(self + 6);
		return *c ? run_command(*c, argc, argv, e) : unknown_command(self + 6, e);
	}
	if (argc < 2)
		return err_set(e, ERR_USAGE, "a command is missing; 'quire help' lists the commands");
	const char *name = argv[1];
	if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		return print_version(e);
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	else if (*name == '-')
		return err_set(e, ERR_USAGE, "unknown option %.40s; options come after the command: quire COMMAND [OPTION...]", name);
	*c = command_find(name);
	return *c ? run_command(*c, argc - 1, argv + 1, e) : unknown_command(name, e);
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	const struct command *c = NULL;
	start_as_wished(argv);
	catch_signals();
	int rc = dispatch(argc, argv, &c, &e);
	/* a gate that failed has printed its result and may have nothing to add */
	if (rc && (*e.message || rc != ERR_GATE))
		print_error(c ? c->name : NULL, &e);
	else if (!rc && (rc = close_output(&e)))
		print_error(c ? c->name : NULL, &e);
	finished = true;
	return rc;
}
