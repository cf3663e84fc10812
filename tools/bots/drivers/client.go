// net/http of Go: `go run client.go BASE PLAN` with PLAN as tab-separated lines (variant, method, path, body, name, value, …).
package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	fmt.Println(runtime.Version())
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		part := strings.Split(line, "\t")
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: os.Getenv("EDGE_HTTP") != "1"}
		client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
		asked, err := http.NewRequest(part[1], os.Args[1]+"/c/go/"+part[0]+"/"+part[2], strings.NewReader(part[3]))
		if err != nil {
			panic(err)
		}
		for at := 4; at+1 < len(part); at += 2 {
			asked.Header.Set(part[at], part[at+1])
		}
		answer, err := client.Do(asked)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		answer.Body.Close()
		transport.CloseIdleConnections()
	}
}
