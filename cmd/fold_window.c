#include "cmd/fold_window.h"

#include <stdlib.h>

#include "calib/fold/attention_mass.h"
#include "cmd/command.h"

int windowing_options(struct windowing *w, int64_t window, int64_t every, bool has_text, struct err *e)
{
	if (!window && every < 0)
		return ERR_OK;
	if (!window)
		return err_set(e, ERR_USAGE, "--full-every is for --sliding-window");
	if (window < 1 || window > INT32_MAX || every == 0 || every > INT32_MAX)
		return err_set(e, ERR_USAGE, "--sliding-window and --full-every need numbers from 1");
	if (!has_text)
		return err_set(e, ERR_USAGE, "--sliding-window needs a text to see where layers look: --data TEXT");
	w->window = (uint32_t)window;
	w->every = every < 0 ? 4 : (uint32_t)every;
	return ERR_OK;
}

int windowing_check(const struct windowing *w, const struct config *c, struct err *e)
{
	if (w->window && c->context && w->window >= c->context)
		return err_set(e, ERR_USAGE, "--sliding-window %u: the context of this model is %u, a window must be shorter", w->window, c->context);
	for (uint32_t i = 0; w->window && i < c->layers; i++)
		if (c->layer[i].window)
			return err_set(e, ERR_UNSUPPORTED, "layer %u has a window of %u already", i, c->layer[i].window);
		else if (c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u; windows come before layers are shared", i,
				       c->layer[i].kv_source);
	return ERR_OK;
}

/* Mean over the layers that read an owner's cache. */
static double looks_back(const struct windowing *w, const struct config *c, uint32_t owner)
{
	double sum = 0;
	uint32_t n = 0;
	for (uint32_t i = owner; i < c->layers; i++)
		if (c->layer[i].kv_source == owner) {
			sum += w->outside ? w->outside[i] : 0;
			n++;
		}
	return sum / n;
}

/* The next `every` owners from *at on; the one that keeps full attention. */
static uint32_t choose_full(const struct windowing *w, const struct config *c, uint32_t *at)
{
	uint32_t full = *at, n = 0;
	for (; *at < c->layers && n < w->every; ++*at) {
		if (c->layer[*at].kv_source != *at)
			continue;
		n++;
		/* without figures the last one */
		if (looks_back(w, c, *at) >= looks_back(w, c, full))
			full = *at;
	}
	return full;
}

int windowing_choose(struct windowing *w, struct model *m, const struct windows *text, struct config *to, struct err *e)
{
	int rc = ERR_OK;
	if (text) {
		w->outside = calloc(to->layers, sizeof *w->outside);
		rc = w->outside ? attention_mass(m, text, w->window, w->outside, e) : err_nomem(e);
	}
	for (uint32_t i = 0; i < to->layers && !rc; i++)
		to->layer[i].window = w->window;
	for (uint32_t at = 0; at < to->layers && !rc;) {
		if (to->layer[at].kv_source != at) {
			at++;
			continue;
		}
		to->layer[choose_full(w, to, &at)].window = 0;
	}
	for (uint32_t i = 0; i < to->layers && !rc; i++)
		to->layer[i].window = to->layer[to->layer[i].kv_source].window;
	if (!rc && w->every > 6)
		warn("one layer of %u keeps full attention; fewer than one in four to six is known to hurt recall over long texts", w->every);
	return rc;
}

void windowing_text(const struct windowing *w, const struct config *c, struct strbuf *out)
{
	for (uint32_t i = 0; w->window && i < c->layers; i++) {
		strbuf_printf(out, "layer %-3u ", i);
		if (c->layer[i].window)
			strbuf_printf(out, "window %u", c->layer[i].window);
		else
			strbuf_puts(out, "full");
		if (w->outside)
			strbuf_printf(out, ", %.1f %% of its attention was before the last %u tokens", 100 * w->outside[i], w->window);
		strbuf_putc(out, '\n');
	}
}

void windowing_json(const struct windowing *w, const struct config *c, struct json_writer *j)
{
	if (!w->window)
		return;
	jw_uint(j, "window", w->window);
	jw_array(j, "windows");
	for (uint32_t i = 0; i < c->layers; i++)
		jw_uint(j, NULL, c->layer[i].window);
	jw_end_array(j);
	if (!w->outside)
		return;
	jw_array(j, "attention_outside");
	for (uint32_t i = 0; i < c->layers; i++)
		jw_double(j, NULL, w->outside[i]);
	jw_end_array(j);
}
