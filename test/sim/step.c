/* The steps of an exploration: each is a few moves that belong together. See explore.h for why no
 * finer ones are needed. */
#include "step.h"

#include <assert.h>

#include "order-svc/order.h"
#include "region.h"

enum { MUCH = 1000 };

const struct plan *plan;
struct place *place;
struct scope scope;
struct schedule *recording;

/* ---- Steps made of moves ---- */

static bool make(struct move move)
{
    if (recording) {
        region_close();
        schedule_add(recording, move);
        region_open();
    }
    return move_make(&place->w, &move);
}

static struct move at(enum move_kind kind, int service, int lane, int n)
{
    return (struct move){.kind = kind, .service = (int8_t)service, .lane = (int8_t)lane, .n = n};
}

static struct lane *lane_of(int service, int number)
{
    return &place->w.service[service].lane[number];
}

static void publish(int service, int number)
{
    struct lane *lane = lane_of(service, number);

    if (lane->sent < lane->outbox_n)
        make(at(MOVE_SEND, service, number, MUCH));
    if (!plan->reports && lane->acked < lane->sent)
        make(at(MOVE_ACK, service, number, MUCH));
}

static void take_all(int service)
{
    for (int i = 0; i < scope.lanes; i++)
        make(at(MOVE_TAKE, service, scope.lane[i], false));
}

static void commit(const struct step *step)
{
    int service = step->service;

    make(at(MOVE_COMMIT, service, 0, 0));
    place->left.open = -1;
    place->left.gathered = 0;
    if (place->w.failed[0])
        return;
    if (step->after == LOST) {
        make((struct move){
            .kind = MOVE_LOSE, .service = (int8_t)service, .lane = step->lane, .at = -1001});
        place->left.losses--;
    }
    if (step->after == PAUSED) {
        make(at(MOVE_TAKE, service, step->lane, true));
        place->left.takeovers--;
    }
    if (step->after != KILLED && step->after != PAUSED)
        for (int i = 0; i < scope.lanes; i++)
            publish(service, scope.lane[i]);
    if (step->after == KILLED || step->after == KILLED_SENT) {
        take_all(service);
        place->left.crashes--;
    }
}

static void gathered(const struct step *step)
{
    place->left.open = step->service;
    place->left.gathered++;
    if (plan->batch <= 1)
        commit(step);
}

static int partition_of(const struct ask *a)
{
    return (sim_lane(a->key) + a->misplaced) % LANES;
}

static void ask(const struct step *step)
{
    const struct ask *a = &plan->ask[step->n];

    for (int i = 0; i < ASKS_MAX; i++)
        if (i == step->n)
            place->left.ask[i]--;
        else if (a->either && plan->ask[i].either == a->either)
            place->left.ask[i] = -1;
    const struct saga_row *row = sim_row(&place->w, ORDER, a->key);
    if (!row || !row->state) /* deadlines come in this order, and not together */
        make((struct move){.kind = MOVE_CLOCK, .at = APART});
    make((struct move){.kind = MOVE_REQUEST, .lane = step->lane, .key = a->key, .text = a->text});
    make(at(MOVE_READ, ORDER, step->lane, 1));
    gathered(step);
}

static void call(const struct step *step)
{
    struct move move = {.kind = MOVE_CALL, .input = step->which, .key = step->key, .n = step->n};

    if (step->n == GONE)
        move.kind = MOVE_GONE;
    else if (step->n != ANSWERED)
        place->left.silent--;
    make(move);
}

/* Reads what moves no order. */
static void pass(int service, int number, int input)
{
    const struct service *s = &place->w.service[service];
    int topic = 0;

    while (strcmp(topic_names[topic], s->intake.topic[input]))
        topic++;
    while (!place->w.failed[0]) {
        const struct saga_input *in = &s->lane[number].reader.input[input];
        const struct partition *p = &place->w.topic[topic][number];
        if (topic == REQUESTS || in->next_offset >= p->n)
            return;
        const struct entry *e = &p->at[in->next_offset];
        if (saga_id_same(e->previous, in->last) && saga_rule_of(&s->as, e->event->type))
            return;
        struct move move = at(MOVE_READ, service, number, 1);
        move.input = (int8_t)input;
        make(move);
        make(at(MOVE_COMMIT, service, 0, 0));
    }
}

void step_make(const struct step *step)
{
    struct move move = at(MOVE_READ, step->service, step->lane, 1);

    move.key = step->key;
    move.input = step->input;
    switch (step->kind) {
    case ASK:
        ask(step);
        break;
    case REPLY:
    case DUE:
        move.kind = step->kind == DUE ? MOVE_DUE : MOVE_REPLY;
        move.n = step->kind == DUE ? 1 : step->n;
        /* fall through */
    case READ:
        make(move);
        gathered(step);
        break;
    case COMMIT:
        commit(step);
        break;
    case SEND:
        make(at(MOVE_SEND, step->service, step->lane, 1));
        if (!plan->reports)
            make(at(MOVE_ACK, step->service, step->lane, 1));
        break;
    case ACK:
        make(at(MOVE_ACK, step->service, step->lane, 1));
        break;
    case CALL:
        call(step);
        break;
    case AGAIN:
        place->left.early--;
        make((struct move){.kind = MOVE_AGAIN, .input = step->which, .key = step->key});
        break;
    case CRASH:
        place->left.crashes--;
        take_all(step->service);
        break;
    case TAKE:
        place->left.takeovers -= step->n;
        make(at(MOVE_TAKE, step->service, step->lane, step->n));
        break;
    case ZOMBIE:
        make(at(MOVE_ZOMBIE, step->service, step->lane, 1));
        break;
    case COPY:
        place->left.copies--;
        make((struct move){.kind = MOVE_COPY,
                           .input = step->input,
                           .lane = step->lane,
                           .at = step->n,
                           .n = step->lane});
        break;
    case REWIND:
        place->left.rewinds--;
        move.kind = MOVE_REWIND;
        move.at = step->n;
        make(move);
        break;
    }
    for (int i = 0; i < SERVICES && !place->w.failed[0] && place->left.open < 0; i++)
        for (int l = 0; l < scope.lanes; l++)
            for (int t = 0; t < place->w.service[i].intake.topics; t++)
                pass(i, scope.lane[l], t);
}

/* ---- Which steps there are ---- */

static void add(struct steps *steps, struct step step)
{
    assert(steps->n < STEPS_MAX);
    steps->at[steps->n++] = step;
}

/* An input of a batch, or its COMMIT, with all that can follow. */
static void add_commits(struct steps *steps, struct step step)
{
    const struct left *left = &place->left;

    if (plan->batch > 1 && step.kind != COMMIT) {
        add(steps, step);
        return;
    }
    for (int i = PUBLISHED; i < AFTERS; i++) {
        step.after = (enum after)i;
        if (i == PUBLISHED || (i == LOST && left->losses) || (i == PAUSED && left->takeovers) ||
            ((i == KILLED || i == KILLED_SENT) && left->crashes))
            add(steps, step);
        step.owed = false;
    }
}

static void add_asks(struct steps *steps)
{
    for (int i = 0; i < ASKS_MAX && plan->ask[i].text; i++)
        if (place->left.ask[i] > 0)
            add_commits(steps, (struct step){.kind = ASK,
                                             .n = i,
                                             .service = ORDER,
                                             .lane = (int8_t)partition_of(&plan->ask[i])});
}

static void add_reads(struct steps *steps, int service)
{
    const struct service *s = &place->w.service[service];

    for (int l = 0; l < scope.lanes; l++)
        for (int t = 0; t < s->intake.topics; t++)
            if (sim_unread(&place->w, service, scope.lane[l], t) > 0)
                add_commits(steps, (struct step){.kind = READ,
                                                 .service = (int8_t)service,
                                                 .lane = (int8_t)scope.lane[l],
                                                 .input = (int8_t)t,
                                                 .owed = true});
}

/* Whether somebody works on what the key's row waits for. */
static bool is_called(const char *key)
{
    const struct sim_world *w = &place->w;

    for (int i = 0; i < w->pending_n; i++)
        if (!w->pending[i].orphan && !strcmp(w->pending[i].call.key, key))
            return true;
    for (int i = 0; i < w->reply_n; i++)
        if (!strcmp(w->reply[i].key, key))
            return true;
    return false;
}

static void add_dues(struct steps *steps, int service)
{
    for (int i = 0; i < scope.keys; i++) {
        const struct saga_row *row = sim_row(&place->w, service, scope.key[i]);
        struct step step = {.kind = DUE,
                            .service = (int8_t)service,
                            .lane = (int8_t)sim_lane(scope.key[i]),
                            .key = scope.key[i]};
        if (!row || !row->due || (service == ORDER && !plan->deadlines) ||
            (service == PAYMENT && is_called(scope.key[i])))
            continue;
        step.owed = service == PAYMENT || row->due <= place->w.now;
        add_commits(steps, step);
    }
}

static void add_replies(struct steps *steps)
{
    const struct sim_world *w = &place->w;

    for (int i = 0, of[KEYS_MAX] = {0}; i < w->reply_n; i++) {
        int k = strcmp(w->reply[i].key, scope.key[0]) != 0;
        add_commits(steps, (struct step){.kind = REPLY,
                                         .service = PAYMENT,
                                         .lane = (int8_t)w->reply[i].lane,
                                         .key = scope.key[k],
                                         .n = of[k]++,
                                         .owed = true});
    }
}

static void add_calls(struct steps *steps)
{
    const struct sim_world *w = &place->w;
    const struct left *left = &place->left;

    for (int i = 0; i < w->pending_n; i++) {
        const struct pending *p = &w->pending[i];
        struct step step = {
            .kind = CALL,
            .key = scope.key[strcmp(p->call.key, scope.key[0]) != 0],
            .which = (int8_t)((!strcmp(p->call.call->type, "charge") ? MOVE_CHARGE : MOVE_REFUND) |
                              (p->orphan ? MOVE_ORPHAN : MOVE_LIVE)),
            .n = ANSWERED,
            .owed = true};
        add(steps, step);
        if (p->orphan) {
            step.n = GONE;
            add(steps, step);
            continue;
        }
        step.owed = false;
        for (step.n = APPLIED_UNKNOWN; left->silent && step.n <= NEVER; step.n++)
            add(steps, step);
        step.kind = AGAIN;
        if (left->early)
            add(steps, step);
    }
}

static void add_owners(struct steps *steps, int service)
{
    const struct left *left = &place->left;

    if (left->crashes)
        add(steps, (struct step){.kind = CRASH, .service = (int8_t)service});
    for (int i = 0; i < scope.lanes; i++) {
        const struct lane *lane = lane_of(service, scope.lane[i]);
        struct step step = {
            .kind = TAKE, .service = (int8_t)service, .lane = (int8_t)scope.lane[i], .owed = true};
        if (lane->lost)
            add(steps, step);
        step.n = 1;
        step.owed = false;
        if (left->takeovers)
            add(steps, step);
        step.kind = ZOMBIE;
        if (lane->zombies)
            add(steps, step);
        step.kind = SEND;
        step.owed = true;
        if (lane->sent < lane->outbox_n)
            add(steps, step);
        step.kind = ACK;
        int acked = lane->acked;
        while (acked < lane->sent && lane->offsets[acked] < 0)
            acked++;
        if (acked < lane->sent)
            add(steps, step);
    }
}

static void add_copies(struct steps *steps)
{
    for (int l = 0; l < scope.lanes; l++)
        for (int t = ORDER_EVENTS; place->left.copies && t <= PAYMENT_EVENTS; t++)
            for (int i = 0; i < place->w.topic[t][scope.lane[l]].n; i++)
                add(steps,
                    (struct step){
                        .kind = COPY, .lane = (int8_t)scope.lane[l], .input = (int8_t)t, .n = i});
}

static void add_rewinds(struct steps *steps, int service)
{
    const struct service *s = &place->w.service[service];

    for (int l = 0; l < scope.lanes; l++)
        for (int t = 0; place->left.rewinds && t < s->intake.topics; t++)
            for (int i = 0;
                 i < s->lane[scope.lane[l]].reader.input[t].next_offset && s->intake.source[t]; i++)
                add(steps, (struct step){.kind = REWIND,
                                         .service = (int8_t)service,
                                         .lane = (int8_t)scope.lane[l],
                                         .input = (int8_t)t,
                                         .n = i});
}

/* While a batch is gathered nothing else happens: nobody could see it. */
void step_list(struct steps *steps)
{
    const struct left *left = &place->left;

    steps->n = 0;
    if (left->open >= 0)
        add_commits(steps, (struct step){.kind = COMMIT,
                                         .service = left->open,
                                         .lane = (int8_t)scope.lane[0],
                                         .owed = true});
    if (left->open >= 0 && left->gathered >= plan->batch)
        return;
    for (int i = 0; i < SERVICES; i++) {
        if (left->open >= 0 && left->open != i)
            continue;
        add_reads(steps, i);
        if (i != INVENTORY)
            add_dues(steps, i);
        if (i == PAYMENT)
            add_replies(steps);
        if (i == ORDER)
            add_asks(steps);
        if (left->open >= 0)
            continue;
        add_owners(steps, i);
        add_rewinds(steps, i);
    }
    if (left->open >= 0)
        return;
    add_calls(steps);
    add_copies(steps);
}

/* ---- The beginning ---- */

/* What a batch gathers and makes is nothing between two of them. */
static void make_scratch(struct saga_batch *b)
{
    enum { ROOM = 64 };

    region_scratch();
    if (plan->batch <= 1) {
        b->in = saga_alloc(ROOM * sizeof *b->in);
        b->cap = ROOM;
    }
    b->out = saga_alloc(ROOM * sizeof *b->out);
    b->call = saga_alloc(ROOM * sizeof *b->call);
    b->log = saga_alloc(ROOM * sizeof *b->log);
    b->out_cap = b->call_cap = b->log_cap = ROOM;
    saga_buf_room(&b->values, 1 << 16);
    region_open();
}

static void see_key(const char *key)
{
    for (int i = 0; i < scope.keys; i++)
        if (!strcmp(scope.key[i], key))
            return;
    assert(scope.keys < KEYS_MAX);
    scope.key[scope.keys++] = key;
}

static void see_lane(int lane)
{
    for (int i = 0; i < scope.lanes; i++)
        if (scope.lane[i] == lane)
            return;
    scope.lane[scope.lanes++] = lane;
}

void step_begin(const struct plan *p)
{
    plan = p;
    scope.keys = scope.lanes = 0;
    for (int i = 0; i < ASKS_MAX && plan->ask[i].text; i++) {
        see_key(plan->ask[i].key);
        see_lane(sim_lane(plan->ask[i].key));
        see_lane(partition_of(&plan->ask[i]));
    }
    order_pay_timeout = PAY_TIMEOUT;
    region_start();
    region_open();
    place = saga_alloc(sizeof *place);
    sim_init(&place->w, false);
    for (int i = 0; i < SERVICES; i++)
        make_scratch(&place->w.service[i].batch);
    place->left = (struct left){
        .silent = (int8_t)plan->silent,
        .early = (int8_t)plan->early,
        .crashes = (int8_t)plan->crashes,
        .takeovers = (int8_t)plan->takeovers,
        .copies = (int8_t)plan->copies,
        .rewinds = (int8_t)plan->rewinds,
        .losses = (int8_t)plan->losses,
        .open = -1,
    };
    for (int i = 0; i < ASKS_MAX; i++)
        place->left.ask[i] = (int8_t)plan->ask[i].times;
    make((struct move){.kind = MOVE_STOCK, .key = "apple", .n = plan->pieces});
    region_close();
}
