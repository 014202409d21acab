/* What `quire help` tells besides the commands, from the tables that they walk. */
#include "calib/fold/share.h"
#include "calib/quant/quantizer.h"
#include "cmd/command.h"
#include "fold/fold_heads.h"
#include "formats/checkpoint.h"
#include "model/arch.h"

static void print_models(struct strbuf *out)
{
	strbuf_puts(out, "model_type of config.json, its class, and the architecture of GGUF (-: no program loads it from there).\n"
			 "Anything else is refused by name; what a variant needs and quire lacks, by the key that asks for it.\n\n");
	for (unsigned i = 0; i < arch_row_count; i++)
		strbuf_printf(out, "  %-16s %-26s %s\n", arch_rows[i]->name, arch_rows[i]->hf_class, arch_rows[i]->gguf ? arch_rows[i]->gguf : "-");
}

static void print_formats(struct strbuf *out)
{
	strbuf_puts(out, "What --to takes, the suffix that stands for it, and who else loads it.\n\n");
	for (unsigned i = 0; i < format_row_count; i++) {
		const struct format *f = format_rows[i];
		strbuf_printf(out, "  %-12s %-14s %s%s\n", f->name, f->suffix ? f->suffix : "folder", f->create ? "" : "only read; ", f->summary);
		if (f->loaded_by)
			strbuf_printf(out, "  %-12s %-14s loaded by %s\n", "", "", f->loaded_by);
	}
}

static void print_methods(struct strbuf *out)
{
	strbuf_puts(out, "quantize --method, without statistics:\n\n");
	for (unsigned i = 0; i < method_row_count; i++)
		if (!method_rows[i].needs_importance)
			strbuf_printf(out, "  %-10s %s\n", method_rows[i].name, method_rows[i].summary);
	strbuf_puts(out, "\n... and with those of quire calibrate:\n\n");
	for (unsigned i = 0; i < quantizer_row_count; i++)
		strbuf_printf(out, "  %-10s %s%s\n", quantizer_rows[i].name, quantizer_rows[i].summary,
			      quantizer_rows[i].needs_moments ? " (--collect full)" : "");
	strbuf_puts(out, "\nfold --method, for heads:\n\n");
	for (unsigned i = 0; i < fold_method_row_count; i++)
		strbuf_printf(out, "  %-10s %s\n", fold_method_rows[i].name, fold_method_rows[i].summary);
	strbuf_puts(out, "\nfold --share-method, for layers:\n\n");
	for (unsigned i = 0; i < share_method_row_count; i++)
		strbuf_printf(out, "  %-10s %s\n", share_method_rows[i].name, share_method_rows[i].summary);
}

const struct help_topic help_topics[] = {
	{ "schemes", schemes_print },
	{ "models", print_models },
	{ "formats", print_formats },
	{ "methods", print_methods },
};
const unsigned help_topic_count = sizeof help_topics / sizeof *help_topics;
