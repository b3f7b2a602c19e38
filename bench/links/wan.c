/* A wide-area network between network namespaces, as one process. `wan.py` compiles and drives it.
 *
 *     wan QUEUE_MS        then one command a line on its standard input:
 *
 *     site SPACE IPV4 UP DOWN             a namespace with the device wan0; Mbit/s, headers included
 *     rate SITE UP DOWN                   new rates of a site, by its number, counted from 0
 *     edge SITE SITE DELAY JITTER LOSS    of the pair, each way: ms, ms, probability of a packet's loss
 *     count                               answered by the time (Unix, seconds), then four numbers a site:
 *                                         bytes that left it, bytes that reached it, packets that the queue
 *                                         of its uplink dropped, and that of its downlink
 *
 * A packet waits for its sender's uplink, travels, and waits for its receiver's downlink. Either queue holds
 * QUEUE_MS of traffic and drops what comes when it is full, as a router does. Jitter delays packets and never
 * reorders those of a pair. A loss of 1 is a dead edge. Other commands are answered by a line, "ok".
 *
 * This stands for the world, which does not wait for a core: it asks the kernel to be scheduled first.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SITES = 72, MAX_PACKET = 65536, BATCH = 64 };

typedef int64_t Nanos;

struct site {
    uint32_t address;
    int device;
    double up, down; /* bits per nanosecond */
    Nanos up_free, down_free;
    uint64_t num_sent, num_received; /* bytes */
    uint64_t up_drops, down_drops;   /* packets */
};

struct edge {
    Nanos delay, jitter, last;
    double loss;
};

struct packet {
    Nanos at;
    uint64_t order;
    uint8_t *bytes;
    uint16_t length;
    uint8_t from, to, arrived; /* arrived: it has passed the receiver's downlink, too */
};

static struct site sites[MAX_SITES];
static struct edge edges[MAX_SITES][MAX_SITES];
static int num_sites;
static Nanos queue_limit;
static struct packet *heap;
static size_t heap_size, heap_room;
static uint64_t next_order;
/* The same losses in every run, as far as timing allows. */
static uint64_t random_state = 0x9E3779B97F4A7C15ULL;

static Nanos now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static double uniform(void) { /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (double)((random_state * 0x2545F4914F6CDD1DULL) >> 11) / 9007199254740992.0;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int sooner(const struct packet *a, const struct packet *b) {
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void swap(size_t a, size_t b) {
    struct packet kept = heap[a];
    heap[a] = heap[b];
    heap[b] = kept;
}

static void push(struct packet packet) {
    if (heap_size == heap_room) {
        heap_room = heap_room ? 2 * heap_room : 4096;
        heap = realloc(heap, heap_room * sizeof *heap);
        if (!heap) die("realloc");
    }
    packet.order = next_order++;
    size_t at = heap_size++;
    heap[at] = packet;
    for (; at && sooner(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2) swap(at, (at - 1) / 2);
}

static struct packet pop(void) {
    struct packet first = heap[0];
    heap[0] = heap[--heap_size];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < heap_size && sooner(&heap[child], &heap[least])) least = child;
        if (least == at) return first;
        swap(at, least);
        at = least;
    }
}

/* When a packet has left a link of that rate; 0 if its queue is full. */
static Nanos leaves(Nanos arrives, Nanos *free_at, double rate, int length) {
    Nanos start = *free_at > arrives ? *free_at : arrives;
    Nanos end = start + (Nanos)(8 * length / rate);
    if (end - arrives > queue_limit) return 0;
    return *free_at = end;
}

/* Packets that a site has sent go on their way. */
static void take(int from) {
    static uint8_t buffer[MAX_PACKET];
    for (int count = 0; count < BATCH; count++) {
        ssize_t length = read(sites[from].device, buffer, sizeof buffer);
        if (length < 20) return;
        if (buffer[0] >> 4 != 4) continue; /* IPv4 alone is carried */
        uint32_t address;
        memcpy(&address, buffer + 16, 4);
        int to = 0;
        while (to < num_sites && sites[to].address != address) to++;
        if (to == num_sites) continue;
        struct edge *edge = &edges[from][to];
        Nanos sent = leaves(now(), &sites[from].up_free, sites[from].up, (int)length);
        if (sent) sites[from].num_sent += (uint64_t)length;
        else sites[from].up_drops++;
        if (!sent || (edge->loss > 0 && uniform() < edge->loss)) continue;
        Nanos at = sent + edge->delay + (Nanos)(edge->jitter * uniform());
        edge->last = at = at > edge->last ? at : edge->last;
        struct packet packet = {.at = at, .length = (uint16_t)length};
        packet.from = (uint8_t)from, packet.to = (uint8_t)to;
        packet.bytes = malloc((size_t)length);
        if (!packet.bytes) die("malloc");
        memcpy(packet.bytes, buffer, (size_t)length);
        push(packet);
    }
}

/* Packets whose moment has come reach the receiver's downlink, or the receiver. */
static void deliver(void) {
    Nanos time = now();
    while (heap_size && heap[0].at <= time) {
        struct packet packet = pop();
        struct site *site = &sites[packet.to];
        if (!packet.arrived) {
            packet.at = leaves(packet.at, &site->down_free, site->down, packet.length);
            packet.arrived = 1;
            if (packet.at) {
                site->num_received += packet.length;
                push(packet);
                continue;
            }
            site->down_drops++;
        } else if (write(site->device, packet.bytes, packet.length) < 0 && errno != EAGAIN && errno != EIO) {
            die("write");
        }
        free(packet.bytes);
    }
}

static int open_device(const char *space) {
    char path[128];
    snprintf(path, sizeof path, "/run/netns/%s", space);
    int home = open("/proc/self/ns/net", O_RDONLY), there = open(path, O_RDONLY);
    if (there < 0 || setns(there, CLONE_NEWNET)) die(path);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "wan0");
    if (device < 0 || ioctl(device, TUNSETIFF, &request)) die("/dev/net/tun");
    if (setns(home, CLONE_NEWNET)) die("setns");
    close(there);
    close(home);
    return device;
}

static void tell_counts(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    printf("%.6f", (double)time.tv_sec + (double)time.tv_nsec / 1e9);
    for (struct site *site = sites; site < sites + num_sites; site++)
        printf(" %lu %lu %lu %lu", site->num_sent, site->num_received, site->up_drops, site->down_drops);
    puts("");
}

/* Returns whether the line was a command. */
static int obey(const char *line) {
    char space[64], address[32];
    int a, b;
    double x, y, z;
    if (sscanf(line, "site %63s %31s %lf %lf", space, address, &x, &y) == 4 && num_sites < MAX_SITES) {
        struct site site = {.address = inet_addr(address), .up = x / 1e3, .down = y / 1e3};
        site.device = open_device(space);
        sites[num_sites++] = site;
        return 1;
    }
    if (sscanf(line, "rate %d %lf %lf", &a, &x, &y) == 3 && a >= 0 && a < num_sites) {
        sites[a].up = x / 1e3, sites[a].down = y / 1e3;
        return 1;
    }
    int num_read = sscanf(line, "edge %d %d %lf %lf %lf", &a, &b, &x, &y, &z);
    if (num_read == 5 && a >= 0 && a < num_sites && b >= 0 && b < num_sites) {
        struct edge edge = {.delay = (Nanos)(x * 1e6), .jitter = (Nanos)(y * 1e6), .loss = z};
        edges[a][b] = edges[b][a] = edge;
        return 1;
    }
    return 0;
}

int main(int count, char **words) {
    if (count != 2) return 2;
    queue_limit = (Nanos)(atof(words[1]) * 1e6);
    struct sched_param first = {.sched_priority = 10};
    /* Some kernels forbid a real-time class. */
    if (sched_setscheduler(0, SCHED_FIFO, &first)) setpriority(PRIO_PROCESS, 0, -20);
    setvbuf(stdin, NULL, _IONBF, 0); /* else poll would not see what is buffered */
    struct pollfd polled[MAX_SITES + 1];
    for (;;) {
        deliver();
        polled[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
        for (int i = 0; i < num_sites; i++)
            polled[i + 1] = (struct pollfd){.fd = sites[i].device, .events = POLLIN};
        Nanos wait = heap_size ? heap[0].at - now() : 1000000000;
        struct timespec pause = {.tv_nsec = wait < 0 ? 0 : wait > 50000000 ? 50000000 : wait};
        if (ppoll(polled, (nfds_t)num_sites + 1, &pause, NULL) <= 0) continue;
        for (int i = 0; i < num_sites; i++)
            if (polled[i + 1].revents & POLLIN) take(i);
        if (polled[0].revents) {
            char line[256];
            if (!fgets(line, sizeof line, stdin)) return 0; /* whoever drives us is gone */
            if (!strcmp(line, "count\n")) tell_counts();
            else puts(obey(line) ? "ok" : "not understood");
            fflush(stdout);
        }
    }
}
