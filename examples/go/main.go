// Sends three events of a customer, reads the features that they changed, and asks what to show next.
//
//	./build.sh && ./example ann
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"example/pb/collect"
	"example/pb/events"
	"example/pb/features"
	"example/pb/recommend"
)

const (
	deadline       = 5 * time.Second // for each call
	readableWithin = 30 * time.Second
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func connect(name, otherwise string) *grpc.ClientConn {
	return must(grpc.NewClient(setting(name, otherwise), grpc.WithTransportCredentials(insecure.NewCredentials())))
}

// call is the context of one call: its deadline, and who is calling.
func call(key, value string) (context.Context, context.CancelFunc) {
	return context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), key, value), deadline)
}

// Events. The id is the same when an event is sent again: the second one is dropped.
func send(customer string) {
	request := &collect.CollectBatchRequest{}
	for _, item := range []string{"50", "172", "181"} {
		id := fmt.Sprintf("go-%s-%s-%d", customer, item, time.Now().UnixNano())
		request.Events = append(request.Events,
			&events.Event{EventId: id, Type: "view", CustomerId: customer, ItemId: item})
	}
	ctx, cancel := call("authorization", "Bearer "+setting("RAPPORT_API_KEY", "dev-key"))
	defer cancel()
	client := collect.NewCollectorClient(connect("RAPPORT_COLLECTOR", "127.0.0.1:7101"))
	outcomes := must(client.CollectBatch(ctx, request)).Outcomes
	for _, outcome := range outcomes {
		// STATUS_RETRY would mean: send this one again, with the same id.
		if outcome.Status != collect.Outcome_STATUS_ACCEPTED {
			log.Fatalf("%s: %s %s", outcome.EventId, outcome.Field, outcome.Message)
		}
	}
	fmt.Println("accepted", len(outcomes))
}

// Features, a few milliseconds later: the version counts the customer's events.
func read(customer, tenant string) {
	client := features.NewFeatureStoreClient(connect("RAPPORT_FEATURE_STORE", "127.0.0.1:7301"))
	request := &features.GetFeaturesRequest{EntityIds: []string{customer}, Views: []string{"activity"}}
	for since := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := call("x-rapport-tenant", tenant)
		answer := must(client.GetFeatures(ctx, request))
		cancel()
		if answer.Vectors[0].Version >= 3 {
			for n, value := range answer.Vectors[0].Values {
				fmt.Println(answer.Names[n], "=", value)
			}
			return
		}
		if time.Since(since) > readableWithin {
			log.Fatal("the events did not become features")
		}
	}
}

// What to show next. Degraded says what the answer had to do without.
func ask(customer, tenant string) {
	ctx, cancel := call("x-rapport-tenant", tenant)
	defer cancel()
	client := recommend.NewRecommenderClient(connect("RAPPORT_SCORER", "127.0.0.1:7501"))
	request := &recommend.RecommendRequest{CustomerId: customer, Limit: 5, WithTitles: true}
	answer := must(client.Recommend(ctx, request))
	for _, item := range answer.Items {
		fmt.Printf("recommended %s %s %.4f\n", item.ItemId, item.Title, item.Score)
	}
	fmt.Println("degraded", answer.Provenance.Degraded)
}

func main() {
	customer, tenant := "ann", setting("RAPPORT_TENANT", "demo")
	if len(os.Args) > 1 {
		customer = os.Args[1]
	}
	send(customer)
	read(customer, tenant)
	ask(customer, tenant)
}
