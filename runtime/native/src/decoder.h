/* A decoder's parts, and who may touch them. */
#ifndef PE_DECODER_H
#define PE_DECODER_H

#include <pthread.h>

#include "file/frozen.h"
#include "ort/runtime.h"
#include "stream/failsafe.h"
#include "stream/latency.h"
#include "stream/queue.h"

/* Rows that poyoedge_rows gives carry a mark of whose units they are; plain integers carry none. */
#define PE_ROW_BITS 20
#define PE_MOST_TABLES 2047u
#define PE_ROW_MASK ((1 << PE_ROW_BITS) - 1)

/* A frozen session that has been opened; replaced as a whole. */
typedef struct {
    pe_frozen frozen;
    OrtSession *model;
    const pe_units *units; /* in the decoder's tables */
    uint32_t mark;         /* of its rows: the place there, from 1 */
    bool takes_integers;   /* its units are those of the session that the decoder was opened with */
    pe_silence silence;
} pe_session;

/* Units of a session, kept until the decoder is closed, since rows of them may still come. */
typedef struct {
    pe_units units;
    char *names;
} pe_table;

struct poyoedge_decoder {
    _Atomic int inside; /* calls under way */
    _Atomic bool closing, pushing, decoding, swapping;

    /* Of the thread that swaps, and constant for others. */
    pe_ort ort;
    uint32_t threads, warm_spikes, dim_out;

    /* Under lock: what is heard, and with what to decode. push only ever tries the lock. */
    pthread_mutex_t lock;
    _Atomic int waiting; /* for it: push leaves it to them */
    bool has_lock;
    pe_clock clock;
    pe_intake intake;
    pe_session *session, *running;
    pe_table *tables;
    uint32_t n_tables;
    uint64_t statuses[POYOEDGE_N_STATUSES];
    pe_latency latency;

    pe_queue queue; /* from push to whoever has the lock */

    /* Of the thread that decodes. */
    pe_window window;
    pe_failsafe failsafe;
    _Atomic int64_t decoding_since_ns, last_decode_ns;

    pthread_mutex_t error_lock;
    bool has_error_lock;
    char error[512];
};

/* Count a call; false, and it may touch nothing, if the decoder is being closed. */
bool pe_enter(poyoedge_decoder *decoder);
void pe_leave(poyoedge_decoder *decoder);

/* Keep the sentence of a call that failed, and give its code. */
int pe_fail(poyoedge_decoder *decoder, int code, const char *sentence);

/* Wait for the lock: for one push at most, since the next one finds somebody waiting. */
void pe_lock(poyoedge_decoder *decoder);
void pe_unlock(poyoedge_decoder *decoder);

/* Apply the rules to what was pushed meanwhile; the lock is held. */
void pe_drain(poyoedge_decoder *decoder);

/* Open a session for this decoder, warm; POYOEDGE_OK, or a code and why. */
int pe_session_open(poyoedge_decoder *decoder, const char *path, pe_session **session, char *why,
                    size_t why_size);
void pe_session_free(poyoedge_decoder *decoder, pe_session *session);
/* Use it from now on; the lock is held. */
void pe_session_use(poyoedge_decoder *decoder, pe_session *session);

int64_t pe_now_ns(void);

#endif
