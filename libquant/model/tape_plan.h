#ifndef QUIRE_MODEL_TAPE_PLAN_H
#define QUIRE_MODEL_TAPE_PLAN_H
/* What a tape does for a job: which operations it runs, the steps of the way back, and where values and gradients lie. */
#include "model/tape.h"

enum { TAPE_VALUES = BLOCK_VALUES + BLOCK_OPS, TAPE_ROOMS = 64, NO_ROOM = 255 };

struct tape_life {
	int from, to;            /* operations, and steps behind all of them; to < from: nowhere in the tape */
	uint8_t room;
};

/* The derivative of an operation, in the order of the way back. */
struct tape_step {
	uint8_t op;
	uint8_t group;           /* the first of linears that read one value: how many they are; else 0 */
	bool fresh[3];           /* no gradient by this input is there yet */
};

/* How an operation is cut into items that may run at the same time. */
enum tape_cut { BY_SEQUENCE, BY_EXPERT, WHOLE };

struct tape_value_plan {
	size_t width;
	size_t rows;             /* for each token: 1, or of what experts make as many as work on it */
	int maker;               /* an operation, or -1 */
	unsigned readers;
	bool stream;             /* the stream as an addition leaves it: its gradient is one buffer all the way */
	bool lent;               /* of a linear, added to the stream right away: its gradient is the stream's */
	bool joined;             /* and in the last operation: it is added where that puts the stream, and lies nowhere itself */
	bool wanted;             /* its gradient */
};

struct tape_plan {
	unsigned ops, values, steps, rooms;
	struct op op[BLOCK_OPS]; /* of the job, [from, to); an addition reads the stream as in[1], and makes a new value of it */
	uint8_t cut[BLOCK_OPS];
	bool experts;            /* some are at work */
	bool needed[BLOCK_OPS];  /* is run forward */
	struct tape_value_plan value[TAPE_VALUES];
	value last_stream;
	struct tape_step step[BLOCK_OPS];
	struct tape_life x[TAPE_VALUES], d[TAPE_VALUES];
	size_t room[TAPE_ROOMS]; /* floats for each token */
};

/* False: there are not enough rooms, or experts begin or end outside of the job. */
bool tape_plan_make(struct tape_plan *p, const struct config *c, const struct tape_job *j);

#endif
