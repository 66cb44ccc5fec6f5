#include "guard.h"

#include <stdlib.h>
#include <string.h>

#include "../stream/units.h"

#define MOST_NODES 20000
#define MOST_TENSORS 20000
#define MOST_AXES 8
#define MOST_ELEMENTS (UINT64_C(1) << 28)
#define MOST_FIELDS 1000000
#define SMALL 16 /* a constant of at most as many integers may be a shape */
#define MOST_DIM_OUT 4096
#define OWN_DOMAIN "poyo_edge"

static const char DAMAGED[] = "expected an ONNX model, got one that is damaged or something else";

static const char *const REFUSED[] = {"EPContext",
                                      "PyOp",
                                      "Loop",
                                      "If",
                                      "Scan",
                                      "SequenceMap",
                                      "RandomNormal",
                                      "RandomUniform",
                                      "RandomNormalLike",
                                      "RandomUniformLike",
                                      "Bernoulli",
                                      "Multinomial"};

/* runtime/native/kernels */
static const struct {
    const char *operator_;
    bool heads; /* the one attribute that some have */
} OWN[] = {{"SpikeAttention", false},
           {"LatentAttention", true},
           {"FeedForward", false},
           {"QueryAttention", true}};

static const struct {
    const char *operator_;
    size_t input; /* says how large the result becomes */
} SIZED[] = {{"ConstantOfShape", 0}, {"Expand", 1}, {"Reshape", 1}, {"Tile", 1}, {"Pad", 1},
             {"OneHot", 1}};

/* TensorProto.DataType -> bytes of an element in raw_data; 0: not known. */
static const uint8_t ITEM_BYTES[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 0, 0, 2};

typedef struct {
    size_t n_nodes, n_tensors, n_fields;
    pe_units names;  /* of constants */
    uint64_t *sizes; /* product of each one's integers, if it is small */
    const char *problem;
    pe_interface *found;
} pe_walk;

static bool refuse(pe_walk *walk, const char *problem) {
    if (!walk->problem) walk->problem = problem;
    return false;
}

static bool next(pe_walk *walk, pe_bytes *rest, pe_field *field) {
    if (walk->problem) return false;
    switch (pe_next_field(rest, field)) {
    case PE_END: return false;
    case PE_DAMAGED: return refuse(walk, DAMAGED);
    default:
        if (++walk->n_fields > MOST_FIELDS)
            return refuse(walk, "expected at most 1000000 fields, got more");
        return true;
    }
}

static bool is_message(pe_walk *walk, const pe_field *field) {
    return !field->is_integer || refuse(walk, DAMAGED);
}

static bool is_text(pe_walk *walk, const pe_field *field) {
    if (field->is_integer) return refuse(walk, DAMAGED);
    return pe_is_text(field->bytes) || refuse(walk, DAMAGED);
}

static uint64_t times(uint64_t product, uint64_t value) {
    value = value ? value : 1;
    return product > MOST_ELEMENTS || value > MOST_ELEMENTS ? MOST_ELEMENTS + 1 : product * value;
}

static uint64_t size_of_integer(uint64_t value) { return (int64_t)value < 0 ? 0 - value : value; }

/* Multiply by the integers of a field, packed or not. */
static void multiply(pe_walk *walk, const pe_field *field, uint64_t *product) {
    if (field->is_integer) {
        *product = times(*product, size_of_integer(field->integer));
        return;
    }
    pe_bytes rest = field->bytes;
    uint64_t value;
    while (rest.n) {
        if (!pe_next_integer(&rest, &value)) {
            refuse(walk, DAMAGED);
            return;
        }
        *product = times(*product, size_of_integer(value));
    }
}

typedef struct {
    uint64_t elements;
    size_t n;
} pe_shape;

static void axis(pe_walk *walk, pe_shape *shape, uint64_t dim) {
    if ((int64_t)dim < 0 || dim > MOST_ELEMENTS ||
        (dim && times(shape->elements, dim) > MOST_ELEMENTS))
        refuse(walk, "expected shapes of at most 2^28 elements, got a larger one");
    shape->elements = dim ? times(shape->elements, dim) : 0;
    if (++shape->n > MOST_AXES) refuse(walk, "expected at most 8 axes, got more");
}

static void axes(pe_walk *walk, pe_shape *shape, const pe_field *field) {
    if (field->is_integer) {
        axis(walk, shape, field->integer);
        return;
    }
    pe_bytes rest = field->bytes;
    uint64_t dim;
    while (rest.n && !walk->problem) {
        if (!pe_next_integer(&rest, &dim)) {
            refuse(walk, DAMAGED);
            return;
        }
        axis(walk, shape, dim);
    }
}

static uint64_t raw_integer(const uint8_t *at, size_t item) {
    uint64_t value = 0;
    for (size_t i = 0; i < item; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return item == 4 ? (uint64_t)(int64_t)(int32_t)(uint32_t)value : value;
}

typedef struct {
    pe_bytes name;
    uint64_t small; /* product of its values, if it is a small one of integers */
} pe_tensor;

static pe_tensor tensor(pe_walk *walk, pe_bytes data) {
    pe_tensor found = {.name = PE_NONE, .small = 1};
    pe_shape shape = {.elements = 1};
    pe_bytes raw = PE_NONE;
    bool has_raw = false;
    uint64_t kind = 0, n_typed = 0;
    pe_field field;
    if (++walk->n_tensors > MOST_TENSORS) refuse(walk, "expected at most 20000 tensors, got more");
    while (next(walk, &data, &field)) {
        uint64_t n = field.number, length = field.is_integer ? 1 : field.bytes.n;
        if (n == 13 || (n == 14 && !(field.is_integer && field.integer == 0)))
            refuse(walk, "expected all data in the file, got a path to more");
        if (n == 1)
            axes(walk, &shape, &field);
        else if (n == 2 && field.is_integer)
            kind = field.integer;
        else if (n >= 4 && n <= 11 && n != 8 && n != 9)
            n_typed += length;
        if ((n == 5 || n == 7) && length <= SMALL * 10)
            multiply(walk, &field, &found.small);
        else if (n == 8 && is_text(walk, &field))
            found.name = field.bytes;
        else if (n == 9 && is_message(walk, &field)) {
            raw = field.bytes;
            has_raw = true;
        }
    }
    size_t item = kind < sizeof ITEM_BYTES ? ITEM_BYTES[kind] : 0;
    if (!has_raw && shape.elements > 2 * n_typed)
        refuse(walk, "expected values for each tensor's shape, got fewer");
    if (has_raw && item && raw.n != shape.elements * item)
        refuse(walk, "expected as many bytes of a tensor as its shape says, got others");
    if (!walk->problem && (kind == 6 || kind == 7) && raw.n <= SMALL * 8)
        for (size_t at = 0; at + item <= raw.n; at += item)
            found.small = times(found.small, size_of_integer(raw_integer(raw.at + at, item)));
    return found;
}

static uint64_t attribute(pe_walk *walk, pe_bytes data) {
    uint64_t small = 1;
    pe_field field;
    while (next(walk, &data, &field)) {
        uint64_t n = field.number;
        if (n == 6 || n == 11) refuse(walk, "expected no graph inside a node, got one");
        if (n == 22 || n == 23) refuse(walk, "expected no sparse tensor, got one");
        if ((n == 5 || n == 10) && is_message(walk, &field))
            small = times(small, tensor(walk, field.bytes).small);
        else if ((n == 3 || n == 8) && (field.is_integer || field.bytes.n <= SMALL * 10))
            multiply(walk, &field, &small);
    }
    return small;
}

static void domain(pe_walk *walk, const pe_field *field) {
    if (!field->is_integer && pe_is(field->bytes, OWN_DOMAIN))
        walk->found->own_operators = true;
    else if (is_text(walk, field) && field->bytes.n && !pe_is(field->bytes, "ai.onnx") &&
             !pe_is(field->bytes, "com.microsoft"))
        refuse(walk, "expected operators of ONNX and ONNX Runtime, got another domain");
}

static void set_constant(pe_walk *walk, pe_bytes name, uint64_t small, bool once) {
    pe_name key = {(const char *)name.at, name.n};
    int64_t place = pe_units_find(&walk->names, key);
    if (place >= 0 && once)
        refuse(walk, "expected initializers whose names differ, got one twice");
    else if (place < 0)
        place = pe_units_add(&walk->names, key);
    if (place >= 0) walk->sizes[place] = small;
}

static void check_operator(pe_walk *walk, pe_bytes operator_, const pe_bytes *inputs, size_t n) {
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        if (pe_is(operator_, REFUSED[i]))
            refuse(walk, "expected operators that only compute, got one that does more");
    for (size_t i = 0; i < sizeof SIZED / sizeof *SIZED; i++) {
        if (!pe_is(operator_, SIZED[i].operator_) || SIZED[i].input >= n) continue;
        pe_bytes name = inputs[SIZED[i].input];
        int64_t place = pe_units_find(&walk->names, (pe_name){(const char *)name.at, name.n});
        if (place >= 0 && walk->sizes[place] > MOST_ELEMENTS)
            refuse(walk, "expected results of at most 2^28 elements, got a larger shape");
    }
}

/* A node of our domain: an operator that there is, with no attribute but those that it has. */
static void own_operator(pe_walk *walk, pe_bytes data) {
    bool known = false, heads = true;
    pe_bytes rest = data;
    pe_field f, part;
    while (next(walk, &rest, &f)) {
        if (f.number != 4) continue;
        size_t i = 0;
        while (i < sizeof OWN / sizeof *OWN && !pe_is(f.bytes, OWN[i].operator_))
            i++;
        known = i < sizeof OWN / sizeof *OWN;
        if (!known) break;
        heads = heads && OWN[i].heads;
    }
    if (!known) refuse(walk, "expected an operator of our own, got another one");
    while (next(walk, &data, &f))
        for (pe_bytes inside = f.bytes; f.number == 5 && next(walk, &inside, &part);)
            if (part.number == 1 && (!heads || !pe_is(part.bytes, "heads")))
                refuse(walk, "expected attributes that our operator has, got another one");
}

static void node(pe_walk *walk, pe_bytes data) {
    pe_bytes inputs[2] = {PE_NONE, PE_NONE}, output = PE_NONE, rest = data;
    size_t n_inputs = 0, n_outputs = 0;
    bool constant = false, own = false;
    pe_field field;
    while (next(walk, &rest, &field)) {
        uint64_t n = field.number;
        if (n == 1 && is_text(walk, &field)) {
            if (n_inputs < 2) inputs[n_inputs++] = field.bytes;
        } else if (n == 2 && is_text(walk, &field)) {
            if (!n_outputs++) output = field.bytes;
        } else if (n == 4 && is_text(walk, &field)) {
            constant = constant || pe_is(field.bytes, "Constant");
        } else if (n == 5) {
            is_message(walk, &field);
        } else if (n == 7) {
            domain(walk, &field);
            own = own || (!field.is_integer && pe_is(field.bytes, OWN_DOMAIN));
        }
    }
    if (own && !walk->problem) own_operator(walk, data);
    rest = data;
    for (pe_field f; !walk->problem && pe_next_field(&rest, &f) == PE_FIELD;) {
        if (f.number == 5) {
            uint64_t small = attribute(walk, f.bytes);
            if (constant && n_outputs) set_constant(walk, output, small, false);
        }
    }
    rest = data;
    for (pe_field f; !walk->problem && pe_next_field(&rest, &f) == PE_FIELD;)
        if (f.number == 4) check_operator(walk, f.bytes, inputs, n_inputs);
}

/* ValueInfoProto -> TypeProto -> Tensor -> TensorShapeProto -> Dimension. */
static void value_info(pe_walk *walk, pe_bytes data, uint64_t where) {
    pe_bytes name = PE_NONE, type, tensor_type, dims, dim;
    pe_shape shape = {.elements = 1};
    uint64_t last = 0;
    pe_field f;
    while (next(walk, &data, &f)) {
        if (f.number == 1 && !f.is_integer) name = f.bytes;
        if (f.number != 2 || !is_message(walk, &f)) continue;
        for (type = f.bytes; next(walk, &type, &f);) {
            if (f.number != 1 || !is_message(walk, &f)) continue;
            for (tensor_type = f.bytes; next(walk, &tensor_type, &f);) {
                if (f.number != 2 || !is_message(walk, &f)) continue;
                for (dims = f.bytes; next(walk, &dims, &f);) {
                    if (f.number != 1 || !is_message(walk, &f)) continue;
                    for (dim = f.bytes; next(walk, &dim, &f);)
                        if (f.number == 1 && f.is_integer) axis(walk, &shape, last = f.integer);
                }
            }
        }
    }
    if (where == 11 && pe_is(name, "spike_unit")) walk->found->has_unit = true;
    if (where == 11 && pe_is(name, "spike_time")) walk->found->has_time = true;
    if (where == 12 && pe_is(name, "value") && shape.n == 3 && last == shape.elements &&
        last <= MOST_DIM_OUT)
        walk->found->dim_out = (uint32_t)last;
}

static void graph(pe_walk *walk, pe_bytes data) {
    pe_bytes rest = data;
    pe_field field;
    while (next(walk, &rest, &field)) {
        uint64_t n = field.number;
        if (n == 1 && is_message(walk, &field)) {
            if (++walk->n_nodes > MOST_NODES)
                refuse(walk, "expected at most 20000 nodes, got more");
        } else if (n == 5 && is_message(walk, &field)) {
            pe_tensor found = tensor(walk, field.bytes);
            if (!walk->problem) set_constant(walk, found.name, found.small, true);
        } else if (n == 15) {
            refuse(walk, "expected no sparse tensor, got one");
        } else if (n >= 11 && n <= 13 && is_message(walk, &field)) {
            value_info(walk, field.bytes, n);
        }
    }
    for (pe_field f; !walk->problem && pe_next_field(&data, &f) == PE_FIELD;)
        if (f.number == 1) node(walk, f.bytes);
}

static void operators(pe_walk *walk, pe_bytes data) {
    pe_field field;
    while (next(walk, &data, &field))
        if (field.number == 1) domain(walk, &field);
}

const char *pe_guard(pe_bytes file, pe_interface *found) {
    pe_walk walk = {.found = found};
    pe_bytes rest = file;
    size_t n_graphs = 0;
    pe_field f;
    *found = (pe_interface){0};
    if (file.n > PE_MOST_BYTES) return "expected at most 2^30 bytes, got more";
    if (file.n >= 8 && memcmp(file.at + 4, "ORTM", 4) == 0)
        return "expected an ONNX model, got ONNX Runtime's own format";
    size_t room = file.n < MOST_TENSORS + MOST_NODES ? file.n + 1 : MOST_TENSORS + MOST_NODES;
    walk.sizes = malloc(room * sizeof *walk.sizes);
    if (!pe_units_init(&walk.names, room) || !walk.sizes)
        refuse(&walk, "expected memory to check it with, got none");
    while (next(&walk, &rest, &f)) {
        if (f.number == 7 && is_message(&walk, &f)) n_graphs++;
        if (f.number == 8 && is_message(&walk, &f)) operators(&walk, f.bytes);
        if (f.number == 20) refuse(&walk, "expected no training steps in the file, got some");
        if (f.number == 25) refuse(&walk, "expected no operators defined in the file, got some");
    }
    if (!n_graphs) refuse(&walk, "expected an ONNX model, got bytes without a graph");
    rest = file;
    while (!walk.problem && pe_next_field(&rest, &f) == PE_FIELD)
        if (f.number == 7) graph(&walk, f.bytes);
    pe_units_free(&walk.names);
    free(walk.sizes);
    return walk.problem;
}
