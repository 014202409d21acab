#include "cmd/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

enum { LABELS = 64, POINTS = 512, FONT = 12 };

struct box {
	double x0, y0, x1, y1;
};

struct drawing {
	const struct plot *p;
	struct strbuf *out;
	double x0, x1, y0, y1;       /* range of the data; y in logarithms when log_y */
	struct box in;               /* where data goes */
	struct box taken[LABELS + POINTS];
	size_t taken_count;
};

void html_text(struct strbuf *out, const char *text)
{
	bool valid = utf8_valid(text, strlen(text));
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '&')
			strbuf_puts(out, "&amp;");
		else if (c == '<')
			strbuf_puts(out, "&lt;");
		else if (c == '>')
			strbuf_puts(out, "&gt;");
		else if (c == '"')
			strbuf_puts(out, "&quot;");
		else
			strbuf_putc(out, c < 0x20 || c == 0x7f || (c >= 0x80 && !valid) ? '?' : (char)c);
	}
}

static double text_width(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80; /* characters, not bytes */
	return 0.64 * FONT * (double)n + 2; /* of a bold sans-serif, about */
}

static double map_x(const struct drawing *d, double x)
{
	return d->in.x0 + (x - d->x0) / (d->x1 - d->x0) * (d->in.x1 - d->in.x0);
}

/* Values that a logarithm cannot show sit on the lower edge. */
static double map_y(const struct drawing *d, double y)
{
	double v = !d->p->log_y ? y : y > 0 ? log10(y) : d->y0;
	v = v < d->y0 ? d->y0 : v > d->y1 ? d->y1 : v;
	return d->in.y1 - (v - d->y0) / (d->y1 - d->y0) * (d->in.y1 - d->in.y0);
}

static void widen(double v, double *low, double *high)
{
	if (!isfinite(v))
		return;
	if (v < *low)
		*low = v;
	if (v > *high)
		*high = v;
}

static void find_range(struct drawing *d)
{
	const struct plot *p = d->p;
	double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
	for (size_t s = 0; s < p->count; s++)
		for (size_t i = 0; i < p->series[s].count; i++) {
			const struct plot_point *q = &p->series[s].point[i];
			widen(q->x, &x0, &x1);
			const double ys[3] = { q->y, q->low, q->high };
			for (int k = 0; k < 3; k++)
				if (!p->log_y || ys[k] > 0)
					widen(p->log_y ? log10(ys[k]) : ys[k], &y0, &y1);
		}
	widen(p->mark_x, &x0, &x1);
	if (p->mark_y > 0 || !p->log_y)
		widen(p->log_y ? log10(p->mark_y) : p->mark_y, &y0, &y1);
	if (!(x0 <= x1)) {
		x0 = 0;
		x1 = 1;
	}
	if (!(y0 <= y1)) {
		y0 = -1;
		y1 = 0;
	}
	double px = p->whole_x ? (x1 > x0 ? 0 : 1) : x1 > x0 ? 0.06 * (x1 - x0) : 0.5 * fabs(x1) + 1e-9;
	double py = y1 > y0 ? 0.07 * (y1 - y0) : 0.5;
	d->x0 = !p->whole_x && x0 >= 0 && x0 - px < 0 ? 0 : x0 - px;
	d->x1 = x1 + px;
	d->y0 = !p->log_y && y0 >= 0 ? 0 : y0 - py;
	d->y1 = y1 + py;
}

static void text_at(struct drawing *d, double x, double y, const char *anchor, const char *class, const char *s)
{
	strbuf_printf(d->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, class);
	html_text(d->out, s);
	strbuf_puts(d->out, "</text>");
}

static void number(double v, char buf[32])
{
	snprintf(buf, 32, fabs(v) >= 1e5 || (v != 0 && fabs(v) < 1e-3) ? "%.0e" : "%.4g", v);
}

/* 1, 2 or 5 times a power of ten, so that about `want` steps fit. */
static double nice_step(double range, double want)
{
	double raw = range / want, unit = pow(10, floor(log10(raw))), m = raw / unit;
	return unit * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

static void y_tick(struct drawing *d, double value, bool label)
{
	char text[32];
	double y = map_y(d, value);
	number(value, text);
	strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>", d->in.x0, d->in.x1, y, y);
	if (label)
		text_at(d, d->in.x0 - 6, y + 4, "end", "tick", text);
}

static void y_axis(struct drawing *d)
{
	if (!d->p->log_y) {
		double step = nice_step(d->y1 - d->y0, 5);
		for (double v = ceil(d->y0 / step) * step; v <= d->y1 + step * 1e-9; v += step)
			y_tick(d, v, true);
		return;
	}
	/* over a short range the powers of ten are too few to read from */
	double range = d->y1 - d->y0;
	static const double parts[] = { 1, 2, 5, 3, 4, 6, 7, 8, 9 };
	size_t use = range < 0.7 ? 9 : range < 2.2 ? 3 : 1;
	double every = range > 8 ? ceil(range / 8) : 1;
	for (double decade = floor(d->y0); decade <= d->y1; decade += every)
		for (size_t i = 0; i < use; i++) {
			double v = pow(10, decade) * parts[i];
			if (log10(v) >= d->y0 && log10(v) <= d->y1)
				y_tick(d, v, true);
		}
}

static void x_axis(struct drawing *d)
{
	char text[32];
	double step = nice_step(d->x1 - d->x0, d->p->width < 480 ? 4 : 8);
	if (d->p->whole_x && step < 1)
		step = 1;
	for (double v = ceil(d->x0 / step - 1e-9) * step; v <= d->x1 + step * 1e-9; v += step) {
		double x = map_x(d, v);
		number(fabs(v) < step * 1e-9 ? 0 : v, text);
		strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"axis\"/>", x, x, d->in.y1, d->in.y1 + 4);
		text_at(d, x, d->in.y1 + 17, "middle", "tick", text);
	}
	strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"axis\"/>", d->in.x0, d->in.x1, d->in.y1,
		      d->in.y1);
	text_at(d, (d->in.x0 + d->in.x1) / 2, d->in.y1 + 36, "middle", "name", d->p->x_label);
}

static void marks(struct drawing *d)
{
	const struct plot *p = d->p;
	if (isfinite(p->mark_x)) {
		double x = map_x(d, p->mark_x);
		bool right = x > (d->in.x0 + d->in.x1) / 2;
		strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"mark\"/>", x, x, d->in.y0, d->in.y1);
		text_at(d, x + (right ? -5 : 5), d->in.y0 + 11, right ? "end" : "start", "tick", p->mark_x_label);
		double w = text_width(p->mark_x_label) + 5;
		d->taken[d->taken_count++] = (struct box){ right ? x - w : x, d->in.y0, right ? x : x + w, d->in.y0 + 16 };
	}
	if (isfinite(p->mark_y)) {
		double y = map_y(d, p->mark_y);
		strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"mark\"/>", d->in.x0, d->in.x1, y, y);
		text_at(d, d->in.x1, y - 4, "end", "tick", p->mark_y_label);
		d->taken[d->taken_count++] = (struct box){ d->in.x1 - text_width(p->mark_y_label), y - 16, d->in.x1, y };
	}
}

static void line(struct drawing *d, const struct plot_series *s)
{
	double last = 0;
	strbuf_printf(d->out, "<path class=\"line s%u%s\" d=\"", s->colour % PLOT_COLOURS, s->colour >= PLOT_COLOURS ? " dashed" : "");
	for (size_t i = 0; i < s->count; i++) {
		double x = map_x(d, s->point[i].x), y = map_y(d, s->point[i].y);
		if (i && s->step)
			strbuf_printf(d->out, "L%.1f %.1f", x, last);
		strbuf_printf(d->out, "%c%.1f %.1f", i ? 'L' : 'M', x, y);
		last = y;
	}
	strbuf_puts(d->out, "\"/>");
}

static void dots(struct drawing *d, const struct plot_series *s)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct plot_point *q = &s->point[i];
		double x = map_x(d, q->x), y = map_y(d, q->y);
		if (isfinite(q->low) && isfinite(q->high))
			strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"line s%u\"/>", x, x, map_y(d, q->low),
				      map_y(d, q->high), s->colour % PLOT_COLOURS);
		strbuf_printf(d->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" class=\"%s s%u\"/>", x, y, "4.5", q->open ? "ring" : "disc",
			      s->colour % PLOT_COLOURS);
		if (d->taken_count + 2 <= POINTS && q->label) {
			d->taken[d->taken_count++] = (struct box){ x - 6, y - 6, x + 6, y + 6 };
			if (isfinite(q->low) && isfinite(q->high))
				d->taken[d->taken_count++] = (struct box){ x - 2, map_y(d, q->high), x + 2, map_y(d, q->low) };
		}
	}
}

static double overlap(const struct drawing *d, const struct box *b)
{
	double sum = 0;
	for (size_t i = 0; i < d->taken_count; i++) {
		const struct box *t = &d->taken[i];
		double w = fmin(b->x1, t->x1) - fmax(b->x0, t->x0), h = fmin(b->y1, t->y1) - fmax(b->y0, t->y0);
		if (w > 0 && h > 0)
			sum += w * h;
	}
	if (b->x0 < d->in.x0 || b->x1 > d->p->width || b->y0 < 0 || b->y1 > d->in.y1)
		sum += 1e4;
	return sum;
}

/* Beside its point where it covers nothing; farther away, with a leader, when it must. */
static void label(struct drawing *d, const struct plot_point *q)
{
	static const double ways[][2] = { { 1, -1 }, { 1, 0 }, { 0, -1 }, { -1, 1 }, { -1, 0 }, { 0, 1 }, { 1, 1 }, { -1, -1 } };
	double x = map_x(d, q->x), y = map_y(d, q->y), w = text_width(q->label), least = INFINITY, far = 0;
	struct box best = { 0 };
	for (int ring = 0; ring < 6 && least > 0; ring++)
		for (size_t k = 0; k < 8 && least > 0; k++) {
			double gap = (ways[k][0] != 0 && ways[k][1] != 0 ? 5 : 9) + 14 * ring, cx = x + ways[k][0] * (gap + w / 2), cy = y + ways[k][1] * (gap + (ways[k][1] != 0 ? 6 : 0));
			struct box b = { cx - w / 2, cy - 7, cx + w / 2, cy + 7 };
			double o = overlap(d, &b) + ring * 1e-3;
			if (o < 1e-2)
				o = 0;
			if (o < least) {
				least = o;
				best = b;
				far = ring;
			}
		}
	if (far > 0)
		strbuf_printf(d->out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"leader\"/>", x,
			      fmin(fmax(x, best.x0), best.x1), y, fmin(fmax(y, best.y0), best.y1));
	text_at(d, (best.x0 + best.x1) / 2, (best.y0 + best.y1) / 2 + 4, "middle", "label", q->label);
	if (d->taken_count < LABELS + POINTS)
		d->taken[d->taken_count++] = best;
}

void plot_svg(const struct plot *p, struct strbuf *out)
{
	struct drawing d = { .p = p, .out = out, .in = { 52, 26, p->width - 14, p->height - 46 } };
	find_range(&d);
	strbuf_printf(out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", p->width, p->height);
	html_text(out, p->title);
	strbuf_puts(out, "\">");
	y_axis(&d);
	x_axis(&d);
	text_at(&d, 4, 13, "start", "name", p->y_label);
	marks(&d);
	for (size_t s = 0; s < p->count; s++)
		if (p->series[s].line && p->series[s].count)
			line(&d, &p->series[s]);
	for (size_t s = 0; s < p->count; s++)
		if (p->series[s].dots)
			dots(&d, &p->series[s]);
	for (size_t s = 0; s < p->count; s++)
		for (size_t i = 0; i < p->series[s].count; i++)
			if (p->series[s].point[i].label)
				label(&d, &p->series[s].point[i]);
	strbuf_puts(out, "</svg>");
}
