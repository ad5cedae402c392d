/* load: what clients do to a proxy, and what they saw of it, as one line of JSON.
 *
 *   load requests PORT CONNECTIONS SECONDS     small chat completions over keep-alive connections, one after another
 *   load count    PORT CONNECTIONS REQUESTS    the same, so many in all
 *   load streams  PORT STREAMS SECONDS         streams of 100 pieces, 25 a second each, again and again
 *   load hold     PORT STREAMS                 streams that fall silent 2 KiB into their answer; says so when all have,
 *                                              and keeps them open until its standard input ends
 *
 * broken: answers other than 200, connections lost, streams that ended without [DONE]. Latencies in microseconds: of a
 * whole request, or of a piece from the engine's send to our receive. One thread, epoll. */
#include "wire.h"

#define BUFFER_BYTES 65536
#define HELD_CHUNKS 13 /* of about 170 bytes: 2 KiB and a little */

enum scenario { REQUESTS, STREAMS, HOLD };
struct client {
  int fd, is_answered;
  size_t have;
  long pieces;
  int64_t asked_at_ns;
  char *in;
};

static int poller, port, request_bytes;
static enum scenario scenario;
static char request[2048];
static long answered, broken, pieces, asked, asked_max = -1, held;
static double *latencies_us;
static size_t latencies, latencies_room;

static void note_latency(int64_t ns) {
  if (latencies == latencies_room) {
    latencies_room = latencies_room ? latencies_room * 2 : 65536;
    latencies_us = realloc(latencies_us, latencies_room * sizeof *latencies_us);
    if (!latencies_us) fail("realloc");
  }
  latencies_us[latencies++] = ns / 1000.0;
}

static void write_request(void) {
  char body[512];
  const char *how = scenario == REQUESTS  ? ""
                    : scenario == STREAMS ? "\"stream\":true,\"chunks\":100,\"every_us\":40000,"
                                          : "\"stream\":true,\"held\":1,\"every_us\":1000,\"chunks\":";
  char chunks[16] = "";
  if (scenario == HOLD) snprintf(chunks, sizeof chunks, "%d,", HELD_CHUNKS);
  int length = snprintf(body, sizeof body,
                        "{\"model\":\"bench\",%s%s\"messages\":[{\"role\":\"user\",\"content\":\"Say something of a usual length about the "
                        "weather on the coast, please.\"}]}", how, chunks);
  request_bytes = snprintf(request, sizeof request,
                           "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                           "Accept: */*\r\nAuthorization: Bearer none\r\nContent-Length: %d\r\n\r\n%s", port, length, body);
}

static void ask(struct client *one) {
  one->have = one->pieces = one->is_answered = 0;
  if (asked_max >= 0 && asked >= asked_max) return;
  asked++;
  one->asked_at_ns = now_ns();
  /* A failed send shows as a closed connection at the next read. */
  send_all(one->fd, request, request_bytes);
}

static void dial(struct client *one) {
  struct sockaddr_in address = loopback(port);
  one->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (one->fd < 0 || connect(one->fd, (void *)&address, sizeof address)) fail("load");
  send_at_once(one->fd);
  watch(poller, one->fd, one);
  ask(one);
}

static void redial(struct client *one) {
  broken++;
  close(one->fd);
  dial(one);
}

static void read_stream(struct client *one) {
  int64_t at_ns = now_ns();
  char *from = one->in, *mark, *end;
  while ((mark = strchr(from, '@')) && (end = strchr(mark + 1, '@'))) {
    note_latency(at_ns - atoll(mark + 1));
    pieces++;
    one->pieces++;
    from = end + 1;
  }
  if (scenario == HOLD && one->pieces == HELD_CHUNKS) {
    held++;
    one->pieces++;
  }
  if (strstr(from, "\r\n0\r\n\r\n")) {
    if (!strstr(from, "data: [DONE]")) broken++;
    answered++;
    ask(one);
    return;
  }
  one->have -= from - one->in;
  memmove(one->in, from, one->have + 1);
}

static void read_more(struct client *one) {
  ssize_t got = recv(one->fd, one->in + one->have, BUFFER_BYTES - one->have, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) return redial(one);
  one->in[one->have += got] = 0;
  if (!one->is_answered) {
    if (one->have < 12) return;
    if (strncmp(one->in, "HTTP/1.1 200", 12)) {
      if (!broken) fprintf(stderr, "the first that is not 200: %.300s\n", one->in);
      return redial(one);
    }
    one->is_answered = 1;
  }
  if (scenario != REQUESTS) return read_stream(one);
  if (!message_bytes(one->in, one->have)) return;
  answered++;
  note_latency(now_ns() - one->asked_at_ns);
  ask(one);
}

static int by_size(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return a < b ? -1 : a > b;
}

static double quantile_us(double share) { return latencies ? latencies_us[(size_t)((latencies - 1) * share)] : 0; }

static void print_what_was_seen(double seconds) {
  qsort(latencies_us, latencies, sizeof *latencies_us, by_size);
  printf("{\"answered\": %ld, \"broken\": %ld, \"pieces\": %ld, \"seconds\": %.3f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n", answered,
         broken, pieces, seconds, quantile_us(0.5), quantile_us(0.99));
  fflush(stdout);
}

int main(int count, char **words) {
  if (count < 4) return fprintf(stderr, "usage: load requests|count|streams|hold PORT CLIENTS [SECONDS|REQUESTS]\n"), 2;
  scenario = !strcmp(words[1], "streams") ? STREAMS : !strcmp(words[1], "hold") ? HOLD : REQUESTS;
  port = atoi(words[2]);
  int clients = atoi(words[3]);
  double seconds = count > 4 ? atof(words[4]) : 60;
  if (!strcmp(words[1], "count")) {
    asked_max = atol(words[4]);
    seconds = 3600;
  }
  raise_descriptor_limit();
  signal(SIGPIPE, SIG_IGN);
  poller = epoll_create1(0);
  write_request();
  struct client *all = calloc(clients, sizeof *all);
  int64_t began_ns = now_ns(), end_ns = began_ns + (int64_t)(seconds * 1e9);
  for (int i = 0; i < clients; i++) {
    all[i].in = malloc(BUFFER_BYTES + 1);
    dial(&all[i]);
  }
  struct epoll_event events[EVENTS_MAX];
  while (now_ns() < end_ns && (asked_max < 0 || answered + broken < asked_max) && held < clients) {
    int found = epoll_wait(poller, events, EVENTS_MAX, 100);
    for (int i = 0; i < found; i++) read_more(events[i].data.ptr);
  }
  print_what_was_seen((now_ns() - began_ns) / 1e9);
  if (scenario == HOLD)
    while (getchar() != EOF) continue;
}
