/* KAFKA_CONFIG: how Kafka is reached, in librdkafka's own words (TLS, passwords, buffers). */
#ifndef SAGA_KAFKA_FILE_H
#define SAGA_KAFKA_FILE_H

#include <librdkafka/rdkafka.h>

#include "err.h"

/* Adds the "name=value" lines of the file to a configuration; lines that begin with # and empty ones are
 * passed over, spaces around name and value too. Refused are what librdkafka
 * does not know, and what the promises rest on, whatever its value: acks, where to begin reading, the
 * group, the partitioner and the like. -> 0, or SAGA_FATAL with file, line and reason */
int saga_kafka_file(rd_kafka_conf_t *to, const char *path, struct saga_err *err);

#endif
