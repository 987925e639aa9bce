// Publishes to and consumes from JetStream as fast as one process can, and prints how much in a second.
//
// So that a comparison is one of servers: the client is compiled, and has as many publishers as are asked for,
// each of which waits for its acknowledgement before it sends the next message.
//
// Usage: natsbench URL publish|consume WORKERS SECONDS BYTES
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	stream  = "bench"
	subject = "bench.a"
	batch   = 100
)

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: natsbench URL publish|consume WORKERS SECONDS BYTES")
	}
	workers, seconds, size := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	context := connect(os.Args[1])
	config := &nats.StreamConfig{Name: stream, Subjects: []string{subject}, Storage: nats.FileStorage}
	if _, err := context.AddStream(config); err != nil {
		log.Fatal(err)
	}
	switch os.Args[2] {
	case "publish":
		publish(context, workers, time.Duration(seconds)*time.Second, make([]byte, size))
	case "consume":
		consume(context, workers, time.Duration(seconds)*time.Second)
	default:
		log.Fatal("publish or consume")
	}
}

func number(text string) int {
	found, err := strconv.Atoi(text)
	if err != nil || found < 1 {
		log.Fatalf("%s is no number from 1 on", text)
	}
	return found
}

func connect(url string) nats.JetStreamContext {
	connection, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	context, err := connection.JetStream()
	if err != nil {
		log.Fatal(err)
	}
	return context
}

// Each worker publishes a message, waits until the server has confirmed it, and publishes the next.
func publish(context nats.JetStreamContext, workers int, length time.Duration, data []byte) {
	measure(workers, length, func() func() int {
		return func() int {
			if _, err := context.Publish(subject, data); err != nil {
				log.Fatal(err)
			}
			return 1
		}
	})
}

// Each worker fetches up to a hundred messages of the same consumer and acknowledges each.
func consume(context nats.JetStreamContext, workers int, length time.Duration) {
	name := fmt.Sprintf("c%d", time.Now().UnixNano())
	config := &nats.ConsumerConfig{Durable: name, AckPolicy: nats.AckExplicitPolicy, MaxAckPending: 10_000}
	if _, err := context.AddConsumer(stream, config); err != nil {
		log.Fatal(err)
	}
	measure(workers, length, func() func() int {
		pull, err := context.PullSubscribe("", name, nats.Bind(stream, name))
		if err != nil {
			log.Fatal(err)
		}
		return func() int { return take(pull) }
	})
	if err := context.DeleteConsumer(stream, name); err != nil {
		log.Fatal(err)
	}
}

func take(pull *nats.Subscription) int {
	messages, err := pull.Fetch(batch, nats.MaxWait(200*time.Millisecond))
	if err != nil && err != nats.ErrTimeout {
		log.Fatal(err)
	}
	for _, message := range messages {
		if err := message.Ack(); err != nil {
			log.Fatal(err)
		}
	}
	return len(messages)
}

// Runs steps on workers until the time is up, or nothing is left; prints messages per second.
func measure(workers int, length time.Duration, worker func() func() int) {
	var count, last atomic.Int64
	var group sync.WaitGroup
	begin := time.Now()
	for range workers {
		step := worker()
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Since(begin) < length {
				done := step()
				if done == 0 {
					return
				}
				count.Add(int64(done))
				// Not how long it then waits for more.
				last.Store(int64(time.Since(begin)))
			}
		}()
	}
	group.Wait()
	fmt.Printf("%.1f\n", float64(count.Load())/time.Duration(last.Load()).Seconds())
}
