// The official Go SDK in the matrix of clients: commands and results are lines of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

type object = map[string]any

var (
	told struct {
		URL         string `json:"url"`
		Name        string `json:"name"`
		RedirectURI string `json:"redirect_uri"`
	}
	lines    = bufio.NewReader(os.Stdin)
	progress atomic.Int64
)

func say(line object) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func ask(line object) string {
	say(line)
	answer, _ := lines.ReadString('\n')
	return strings.TrimSpace(answer)
}

// The person's browser.
func fetch(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	came, err := url.Parse(ask(object{"open": args.URL}))
	if err != nil {
		return nil, err
	}
	query := came.Query()
	if query.Has("error") {
		return nil, errors.New(query.Get("error") + ": " + query.Get("error_description"))
	}
	return &auth.AuthorizationResult{
		Code: query.Get("code"), State: query.Get("state"), Iss: query.Get("iss"),
	}, nil
}

func elicit(_ context.Context, request *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
	if request.Params.Mode == "url" {
		ask(object{"visit": request.Params.URL})
		return &mcp.ElicitResult{Action: "accept"}, nil
	}
	return &mcp.ElicitResult{Action: "accept", Content: object{"name": "Ada"}}, nil
}

func connect(ctx context.Context, handler auth.OAuthHandler) (*mcp.ClientSession, error) {
	client := mcp.NewClient(&mcp.Implementation{Name: told.Name, Version: "1"}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{
			Elicitation: &mcp.ElicitationCapabilities{
				Form: &mcp.FormElicitationCapabilities{}, URL: &mcp.URLElicitationCapabilities{},
			},
		},
		ElicitationHandler: elicit,
		ProgressNotificationHandler: func(context.Context, *mcp.ProgressNotificationClientRequest) {
			progress.Add(1)
		},
	})
	transport := &mcp.StreamableClientTransport{Endpoint: told.URL, OAuthHandler: handler}
	return client.Connect(ctx, transport, nil)
}

func call(ctx context.Context, session *mcp.ClientSession, tool string, arguments object) (object, error) {
	progress.Store(0)
	params := &mcp.CallToolParams{Name: tool, Arguments: arguments}
	params.SetProgressToken("progress")
	result, err := session.CallTool(ctx, params)
	if err != nil {
		return nil, err
	}
	// The SDK hands notifications on beside the result: the last may come after it.
	wanted, _ := arguments["to"].(float64)
	for end := time.Now().Add(5 * time.Second); float64(progress.Load()) < wanted && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	var text strings.Builder
	for _, part := range result.Content {
		if shown, ok := part.(*mcp.TextContent); ok {
			text.WriteString(shown.Text)
		}
	}
	return object{"text": text.String(), "is_error": result.IsError, "progress": progress.Load()}, nil
}

func main() {
	ctx := context.Background()
	if err := json.Unmarshal([]byte(os.Args[1]), &told); err != nil {
		panic(err)
	}
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
			Metadata: &oauthex.ClientRegistrationMetadata{
				ClientName:              told.Name,
				RedirectURIs:            []string{told.RedirectURI},
				GrantTypes:              []string{"authorization_code", "refresh_token"},
				TokenEndpointAuthMethod: "none",
			},
		},
		RedirectURL:              told.RedirectURI,
		AuthorizationCodeFetcher: fetch,
		RequestRefreshToken:      true,
		Client:                   http.DefaultClient,
	})
	if err != nil {
		panic(err)
	}
	var session *mcp.ClientSession
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		var command struct {
			Do        string `json:"do"`
			Tool      string `json:"tool"`
			Arguments object `json:"arguments"`
		}
		if err := json.Unmarshal([]byte(line), &command); err != nil {
			panic(err)
		}
		result := object{}
		switch command.Do {
		case "connect":
			session, err = connect(ctx, handler)
			result["ok"] = err == nil
		case "list":
			var found *mcp.ListToolsResult
			if found, err = session.ListTools(ctx, nil); err == nil {
				names := []string{}
				for _, tool := range found.Tools {
					names = append(names, tool.Name)
				}
				result["tools"] = names
			}
		default:
			result, err = call(ctx, session, command.Tool, command.Arguments)
		}
		if err != nil {
			result = object{"error": err.Error()}
			if errors.Is(err, mcp.ErrConnectionClosed) {
				result["ended"] = true
			}
		}
		say(object{"result": result})
	}
}
