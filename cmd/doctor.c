/* quire doctor: what this machine has that matters to quire, how fast it is, and what that means. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/thread.h"
#include "cmd/command.h"
#include "kernel/blas.h"
#include "kernel/kernel.h"
#include "kernel/product.h"

struct doctor_options {
	struct common common;
};

/* Long enough that a clock's tick and a waking thread do not count. */
static const double SECONDS = 0.3;
/* Of a product that is measured: more than caches hold of the weights. */
enum { WEIGHT_ROWS = 4096, WEIGHT_COLS = 2048, INPUTS = 512 };

struct findings {
	char processor[128], blas[160];
	long cores;
	int threads;
	double memory, available;   /* bytes; 0: not known */
	double limit;               /* bytes that the process may take; 0: as many as there are */
	double load;                /* processes that want a core; < 0: not known */
	double product, sgemm;      /* operations a second */
	double reading;             /* bytes a second */
};

/* The value of the first line of a file of the kernel's that begins with a name. */
static bool line_of(const char *path, const char *name, char *out, size_t size)
{
	char line[512];
	bool found = false;
	FILE *f = fopen(path, "r");
	while (f && !found && fgets(line, sizeof line, f)) {
		const char *value = strchr(line, ':');
		if (strncmp(line, name, strlen(name)) || !value)
			continue;
		value += 1 + strspn(value + 1, " \t");
		snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

static double kibibytes_of(const char *name)
{
	char text[64];
	return line_of("/proc/meminfo", name, text, sizeof text) ? 1024 * strtod(text, NULL) : 0;
}

/* ---- measuring */

struct measure {
	uint8_t *weights;           /* [WEIGHT_ROWS, WEIGHT_COLS] bf16 */
	float *x, *y, *scratch;
	float *sum;                 /* per worker */
};

static void decode_bf16(const void *arg, size_t first, size_t n, float *out)
{
	kernels()->f32_from_bf16((const uint8_t *)arg + 2 * first * WEIGHT_COLS, out, n * WEIGHT_COLS);
}

/* Operations a second of the active row, weights in bf16. */
static int product_speed(struct measure *m, double *out, struct err *e)
{
	const struct product_row *row = products();
	struct product_term t = { .w = { WEIGHT_ROWS, WEIGHT_COLS, PRODUCT_BF16, m->weights, decode_bf16, m->weights }, .y = m->y };
	struct product_job j = { .term = &t, .count = 1, .x = m->x, .n = INPUTS, .floats = row->floats(INPUTS, WEIGHT_ROWS, WEIGHT_COLS) };
	j.scratch = m->scratch = malloc(j.floats * sizeof(float));
	if (!j.scratch)
		return err_nomem(e);
	row->weights(&j);
	double from = clock_seconds(), took;
	unsigned runs = 0;
	do {
		row->weights(&j);
		runs++;
	} while ((took = clock_seconds() - from) < SECONDS);
	free(m->scratch);
	m->scratch = NULL;
	*out = 2.0 * runs * INPUTS * WEIGHT_ROWS * WEIGHT_COLS / took;
	return ERR_OK;
}

static void read_rows(void *arg, size_t item, int worker)
{
	const struct measure *m = arg;
	m->sum[worker] += kernels()->dot_bf16(m->weights + item * WEIGHT_COLS * 2, m->x, WEIGHT_COLS);
}

static double reading_speed(struct measure *m)
{
	double from = clock_seconds(), took;
	unsigned runs = 0;
	do {
		thread_for(WEIGHT_ROWS, read_rows, m);
		runs++;
	} while ((took = clock_seconds() - from) < SECONDS);
	return 2.0 * runs * WEIGHT_ROWS * WEIGHT_COLS / took;
}

static int measure(struct findings *f, struct err *e)
{
	struct measure m = { .weights = calloc(WEIGHT_ROWS, 2 * WEIGHT_COLS), .x = calloc(INPUTS * WEIGHT_COLS, sizeof *m.x),
			     .y = malloc(INPUTS * WEIGHT_ROWS * sizeof *m.y), .sum = calloc((size_t)thread_count(), sizeof *m.sum) };
	const char *used = products()->name;
	int rc = m.weights && m.x && m.y && m.sum ? ERR_OK : err_nomem(e);
	for (size_t i = 0; !rc && i < (size_t)WEIGHT_ROWS * WEIGHT_COLS; i++)
		m.weights[2 * i + 1] = 0x3f; /* 0.5, so that the zeros of fresh pages are not what is read */
	if (!rc)
		rc = product_speed(&m, &f->product, e);
	f->sgemm = f->product;
	if (!rc && strcmp(used, "sgemm") && products_select("sgemm")) {
		rc = product_speed(&m, &f->sgemm, e);
		products_select(used);
	}
	if (!rc)
		f->reading = reading_speed(&m);
	free(m.weights);
	free(m.x);
	free(m.y);
	free(m.sum);
	return rc;
}

static void look(struct findings *f)
{
	struct rlimit space;
	char load[64];
	FILE *file = fopen("/proc/loadavg", "r");
	f->load = file && fgets(load, sizeof load, file) ? strtod(load, NULL) : -1;
	if (file)
		fclose(file);
	if (!line_of("/proc/cpuinfo", "model name", f->processor, sizeof f->processor))
		snprintf(f->processor, sizeof f->processor, "unknown");
	blas_describe(f->blas, sizeof f->blas);
	f->cores = sysconf(_SC_NPROCESSORS_ONLN);
	f->threads = thread_count();
	f->memory = kibibytes_of("MemTotal");
	f->available = kibibytes_of("MemAvailable");
	f->limit = !getrlimit(RLIMIT_AS, &space) && space.rlim_cur != RLIM_INFINITY ? (double)space.rlim_cur : 0;
}

/* ---- telling */

/* What could be faster, one line each. */
static void advise(const struct findings *f, void (*say)(void *, const char *), void *arg)
{
	char line[256];
	if (f->threads > f->cores) {
		snprintf(line, sizeof line, "%d threads share %ld cores: --threads %ld or OMP_NUM_THREADS", f->threads, f->cores, f->cores);
		say(arg, line);
	}
	if (f->load > (double)f->cores) {
		snprintf(line, sizeof line, "other programs are running (load %.1f on %ld cores): what is measured here is less than the machine can do",
			 f->load, f->cores);
		say(arg, line);
	}
	if (!strcmp(kernels()->name, "scalar"))
		say(arg, "no vector kernels: plain C is several times slower; build for the processor, or unset QUIRE_CPU");
	if (f->limit > 0) {
		snprintf(line, sizeof line, "a limit on memory is set (ulimit -v): %.1f GiB", f->limit / (1 << 30));
		say(arg, line);
	}
}

static void say_text(void *arg, const char *line)
{
	strbuf_printf(arg, "note        %s\n", line);
}

static void say_json(void *arg, const char *line)
{
	jw_string(arg, NULL, line);
}

static void names(struct strbuf *out)
{
	strbuf_printf(out, "kernels     %s (", kernels()->name);
	const struct kernels *k;
	for (unsigned i = 0; (k = kernels_row(i)); i++)
		strbuf_printf(out, "%s%s%s", i ? ", " : "", k->name, k->usable() ? "" : " not here");
	strbuf_printf(out, ")\nproducts    %s (", products()->name);
	const struct product_row *p;
	for (unsigned i = 0; (p = products_row(i)); i++)
		strbuf_printf(out, "%s%s%s", i ? ", " : "", p->name, p->usable() ? "" : " not here");
	strbuf_puts(out, "); QUIRE_CPU=NAME chooses\n");
}

static void tell_text(const struct findings *f, struct strbuf *out)
{
	strbuf_printf(out, "processor   %s, %ld cores, %d threads used\n", f->processor, f->cores, f->threads);
	names(out);
	strbuf_printf(out, "BLAS        %s\nmemory      %.1f GiB, %.1f GiB of it free\n", f->blas, f->memory / (1 << 30), f->available / (1 << 30));
	strbuf_printf(out, "speed       products %.0f GFLOP/s (sgemm %.0f), reading weights %.1f GB/s\n", f->product / 1e9, f->sgemm / 1e9, f->reading / 1e9);
	strbuf_printf(out, "means       verify and calibrate: at most %.0f tokens/s for each 1 B weights\n", f->product / 2e9);
	strbuf_printf(out, "            generate: at most %.1f tokens/s from a file of 1 GB\n", f->reading / 1e9);
	strbuf_printf(out, "            what holds a model in f32 (training by best): up to %.1f B weights\n", f->available / 4e9);
	advise(f, say_text, out);
}

static void tell_json(const struct findings *f, struct json_writer *w)
{
	jw_document(w, "quire-doctor/1");
	jw_string(w, "processor", f->processor);
	jw_int(w, "cores", f->cores);
	jw_int(w, "threads", f->threads);
	jw_string(w, "kernels", kernels()->name);
	jw_string(w, "products", products()->name);
	jw_string(w, "blas", f->blas);
	jw_double(w, "memory_bytes", f->memory);
	jw_double(w, "memory_free_bytes", f->available);
	jw_double(w, "product_flops", f->product);
	jw_double(w, "sgemm_flops", f->sgemm);
	jw_double(w, "reading_bytes_per_second", f->reading);
	jw_array(w, "notes");
	advise(f, say_json, w);
	jw_end_array(w);
	jw_end_object(w);
	strbuf_putc(w->out, '\n');
}

static int doctor_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct doctor_options *o = options;
	struct findings f = { .threads = 0 };
	struct strbuf text = { 0 };
	struct json_writer json = { .out = &text };
	(void)args;
	(void)count;
	look(&f);
	int rc = measure(&f, e);
	if (!rc && o->common.json)
		tell_json(&f, &json);
	else if (!rc)
		tell_text(&f, &text);
	if (!rc)
		rc = out_print(&text, e);
	strbuf_release(&text);
	return rc;
}

const struct command doctor_command = {
	.name = "doctor",
	.summary = "says what this machine has, and how fast it will be",
	.synopsis = "",
	.description = "Names the processor's instruction sets that are used, the BLAS, threads and memory, measures products and the reading of "
		       "weights for a second, and says what that means for the other commands.",
	.example = "quire doctor\nquire doctor --threads 1 --json",
	.options_size = sizeof(struct doctor_options),
	.run = doctor_run,
};
