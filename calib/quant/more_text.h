#ifndef QUIRE_CALIB_QUANT_MORE_TEXT_H
#define QUIRE_CALIB_QUANT_MORE_TEXT_H
/* Text to train on besides that of the statistics, some of whose windows are held out to judge the training. */
#include "calib/run/evaluate.h"

/*
 * Drops those windows of `more` that share a run of 16 tokens with text; of what is left keeps `most`, spread over it.
 * Both have the same ctx. May leave none.
 */
int more_text_keep(const struct windows *text, size_t most, struct windows *more, struct err *e);

#endif
