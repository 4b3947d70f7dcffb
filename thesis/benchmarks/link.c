/* A link between two network namespaces, in user space: a rate, a delay, a queue that overflows, and loss.
 *
 *   namespace A                                                         namespace B
 *   TUN device --read--> [queue, drains at RATE] --> [DELAY] --write--> TUN device      and the same back
 *
 * For kernels without netem. Each direction is a line of its own. A packet waits until those before it have been
 * put on the line, takes length * 8 / RATE seconds itself, and arrives DELAY later. What does not fit into the
 * queue is dropped, as a router does it, and of the rest LOSS packets in a million, by chance.
 *
 * A packet costs one read and one write, 2 to 4 microseconds: 200 Mbit/s take a tenth of a processor. Whether that
 * is so where you are is what the row of the raw TCP copy shows.
 *
 * Prints "ready" when both devices, called NAME, exist; they still need addresses. Runs until it is killed.
 *
 * usage: link NAME NAMESPACE_FILE RATE_BITS_PER_SECOND DELAY_MICROSECONDS LOSS_PER_MILLION QUEUE_BYTES SEED
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_PACKET = 2048,      /* bytes; the devices' MTU is 1500 */
    SLOTS = 1 << 14,        /* packets on the way in one direction: 200 Mbit/s for 100 ms are 1,700 full ones */
    READS_AT_ONCE = 32,     /* packets taken from one side before the clock is looked at again */
    TIMER_SLACK = 1000,     /* nanoseconds that the kernel may wake us late; its default is 50,000 */
};
#define SECOND 1000000000ull /* nanoseconds */

struct packet {
    uint64_t due; /* nanoseconds of the monotonic clock */
    uint32_t length;
    uint8_t data[MAX_PACKET];
};

struct line {
    int from, to;            /* devices */
    uint64_t line_free;      /* when the last packet so far has been put on the line */
    uint64_t head, tail;     /* packets written and read so far */
    uint64_t random;         /* state of the generator: each line has its own */
    struct packet *packets;  /* a ring of SLOTS; memory is taken as it is used */
};

static uint64_t rate, delay, loss, queue_bytes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* xorshift64*: the upper bits are good enough to lose packets by. */
static uint32_t random_below(struct line *line, uint32_t bound) {
    line->random ^= line->random >> 12;
    line->random ^= line->random << 25;
    line->random ^= line->random >> 27;
    return (uint32_t)((line->random * 0x2545F4914F6CDD1Dull >> 32) % bound);
}

static int open_device(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0) fail("/dev/net/tun");
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(device, TUNSETIFF, &request)) fail("TUNSETIFF");
    return device;
}

/* Put what was read into the next slot on the line, unless chance or a full queue drops it. */
static void enqueue(struct line *line, struct packet *packet, uint64_t time) {
    uint64_t start = line->line_free > time ? line->line_free : time;
    uint64_t waiting = (start - time) * rate / 8 / SECOND; /* bytes */
    if (waiting + packet->length > queue_bytes || random_below(line, 1000000) < loss) return;
    line->line_free = start + packet->length * 8 * SECOND / rate;
    packet->due = line->line_free + delay;
    line->tail++;
}

/* Take packets from the device; a full ring leaves them in the kernel's queue. */
static void take(struct line *line) {
    uint64_t time = now();
    for (int i = 0; i < READS_AT_ONCE && line->tail - line->head < SLOTS; i++) {
        struct packet *packet = line->packets + line->tail % SLOTS;
        ssize_t length = read(line->from, packet->data, MAX_PACKET);
        if (length < 0 && errno == EAGAIN) return;
        if (length < 0) fail("read");
        packet->length = length;
        enqueue(line, packet, time);
    }
}

/* Hand over what is due; when the next packet is, or UINT64_MAX. */
static uint64_t give(struct line *line) {
    while (line->head != line->tail) {
        struct packet *packet = line->packets + line->head % SLOTS;
        if (packet->due > now()) return packet->due;
        /* A device that is still down refuses with EIO: a packet lost, as on a cable that is not plugged in. */
        if (write(line->to, packet->data, packet->length) < 0 && errno != EIO && errno != EAGAIN) fail("write");
        line->head++;
    }
    return UINT64_MAX;
}

static void carry(struct line *there, struct line *back) {
    struct pollfd devices[2] = {{.fd = there->from, .events = POLLIN}, {.fd = back->from, .events = POLLIN}};
    for (;;) {
        uint64_t due = give(there), due_back = give(back), time = now();
        if (due_back < due) due = due_back;
        struct timespec wait = {0}, *limit = due == UINT64_MAX ? NULL : &wait;
        if (limit && due > time) wait = (struct timespec){(due - time) / SECOND, (due - time) % SECOND};
        if (ppoll(devices, 2, limit, NULL) < 0 && errno != EINTR) fail("ppoll");
        if (devices[0].revents & POLLIN) take(there);
        if (devices[1].revents & POLLIN) take(back);
    }
}

static struct line new_line(int from, int to, uint64_t seed) {
    struct line line = {.from = from, .to = to, .random = seed * 2 + 1};
    line.packets = malloc(SLOTS * sizeof *line.packets);
    if (!line.packets) fail("malloc");
    for (int i = 0; i < 16; i++) random_below(&line, 2); /* small seeds differ in few bits at first */
    return line;
}

int main(int argc, char **argv) {
    if (argc != 8) return fprintf(stderr, "usage: link NAME NAMESPACE RATE DELAY LOSS QUEUE SEED\n"), 2;
    rate = strtoull(argv[3], NULL, 10);
    delay = strtoull(argv[4], NULL, 10) * 1000;
    loss = strtoull(argv[5], NULL, 10);
    queue_bytes = strtoull(argv[6], NULL, 10);
    uint64_t seed = strtoull(argv[7], NULL, 10);
    if (!rate) return fprintf(stderr, "no rate\n"), 2;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK);
    int here = open_device(argv[1]);
    int other = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (other < 0 || setns(other, CLONE_NEWNET)) fail(argv[2]);
    int there = open_device(argv[1]);
    struct line out = new_line(here, there, seed), back = new_line(there, here, seed + 1000003);
    puts("ready");
    fflush(stdout);
    carry(&out, &back);
}
