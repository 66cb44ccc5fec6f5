/* A BRAND node in C: threshold crossings of a Redis stream in, values into another.
 *
 * cc brand_node.c $(pkg-config --cflags --libs poyoedge hiredis) -o poyo_node
 * ./poyo_node -n poyo -i 127.0.0.1 -p 6379 today.onnx thresh_cross decoded [libonnxruntime.so]
 *
 * An entry has `crossings` (int16 for each channel, 1 ms), `ts` (uint64 ns of CLOCK_MONOTONIC) and
 * `sync`, which goes out with the value. Channel i is unit i of the session. Python's node, which
 * reads its parameters from the supergraph and maps names, is poyo_edge.runtime.feeds.brand_node.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hiredis/hiredis.h>
#include <poyoedge.h>

#define PERIOD_NS INT64_C(20000000)
#define MOST_CHANNELS 4096

static volatile sig_atomic_t stop;
static void on_signal(int signal) {
    (void)signal;
    stop = 1;
}

static void say(redisContext *redis, const char *name, int code, const char *state) {
    freeReplyObject(redisCommand(redis, "XADD %s_state * code %d status %s", name, code, state));
}

/* The value of a field of an entry, or NULL. */
static const redisReply *field(const redisReply *entry, const char *name) {
    const redisReply *fields = entry->element[1];
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (strcmp(fields->element[i]->str, name) == 0) return fields->element[i + 1];
    return NULL;
}

/* Push the spikes of an entry; the end of its bin, or 0 if it is none. */
static int64_t push(poyoedge_decoder *decoder, const redisReply *entry) {
    const redisReply *crossings = field(entry, "crossings"), *ts = field(entry, "ts");
    static int64_t ticks[MOST_CHANNELS];
    static int32_t rows[MOST_CHANNELS];
    int64_t end;
    size_t n = 0;
    if (!crossings || !ts || ts->len != sizeof end || crossings->len > 2 * MOST_CHANNELS) return 0;
    memcpy(&end, ts->str, sizeof end);
    for (size_t channel = 0; channel < crossings->len / 2; channel++) {
        int16_t count;
        memcpy(&count, crossings->str + 2 * channel, sizeof count);
        if (count <= 0) continue; /* two crossings of a channel within 1 ms are one spike */
        ticks[n] = end - 500000;
        rows[n++] = (int32_t)channel;
    }
    poyoedge_push_ticks(decoder, ticks, rows, n);
    return end;
}

int main(int n_words, char **words) {
    const char *name = "poyo", *host = "127.0.0.1";
    int port = 6379, option;
    while ((option = getopt(n_words, words, "n:i:p:s:")) != -1) {
        if (option == 'n') name = optarg;
        if (option == 'i') host = optarg;
        if (option == 'p') port = atoi(optarg);
    }
    if (n_words - optind < 3) {
        fprintf(stderr, "usage: %s -n NAME -i HOST -p PORT SESSION INPUT OUTPUT [LIBRARY]\n",
                words[0]);
        return 2;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    redisContext *redis = redisConnect(host, port);
    if (!redis || redis->err) return fprintf(stderr, "no Redis at %s:%d\n", host, port), 4;
    say(redis, name, 0, "NODE_STARTED");
    poyoedge_options options = POYOEDGE_OPTIONS;
    options.session = words[optind];
    options.onnxruntime = n_words - optind > 3 ? words[optind + 3] : NULL;
    options.tick_rate_hz = 1e9;
    poyoedge_decoder *decoder;
    char why[512], last[64] = "$";
    int code = poyoedge_open(&options, &decoder, why, sizeof why);
    if (code) {
        fprintf(stderr, "%s\n", why);
        say(redis, name, code, "NODE_FATAL_ERROR");
        return code;
    }
    poyoedge_state state = {.size = sizeof state};
    poyoedge_stats(decoder, &state);
    double *value = calloc(state.dim_out, sizeof *value);
    say(redis, name, 0, "NODE_READY");
    int64_t next = 0;
    while (!stop) {
        redisReply *reply =
            redisCommand(redis, "XREAD COUNT 64 BLOCK 20 STREAMS %s %s", words[optind + 1], last);
        if (!reply) break;
        const redisReply *entries =
            reply->type == REDIS_REPLY_ARRAY ? reply->element[0]->element[1] : NULL;
        for (size_t i = 0; entries && i < entries->elements; i++) {
            const redisReply *entry = entries->element[i], *sync = field(entry, "sync");
            int64_t end = push(decoder, entry);
            snprintf(last, sizeof last, "%s", entry->element[0]->str);
            if (end < next) continue;
            next = end + PERIOD_NS;
            poyoedge_result result = {.size = sizeof result};
            if (poyoedge_decode_ticks(decoder, end, 0, value, state.dim_out, &result)) continue;
            freeReplyObject(redisCommand(
                redis, "XADD %s MAXLEN ~ 100000 * samples %b ts %b sync %b status %d",
                words[optind + 2], value, state.dim_out * sizeof *value, &end, sizeof end,
                sync ? sync->str : "{}", sync ? (size_t)sync->len : (size_t)2, (int)result.status));
        }
        freeReplyObject(reply);
    }
    say(redis, name, 0, "NODE_SHUTDOWN");
    free(value);
    poyoedge_close(&decoder);
    redisFree(redis);
    return 0;
}
