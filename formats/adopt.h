#ifndef QUIRE_FORMATS_ADOPT_H
#define QUIRE_FORMATS_ADOPT_H
/*
 * A checkpoint as the class of its model loads it, whatever program saved it: names without the prefix of the whole
 * model get it, saved buffers are left out, and a head that is stored beside a tied embedding is dropped when it is the
 * same and believed when it is not. So no command has to know of these.
 */
#include "formats/checkpoint.h"

/* Puts a view in the place of c->source where something changes. A model that quire does not know stays as it is. */
int checkpoint_adopt(struct checkpoint *c, struct err *e);
/* Undoes that; before the format closes. */
void checkpoint_disown(struct checkpoint *c);

#endif
