// Java's HttpClient. It first asks for an upgrade to HTTP/2 (h2c), as it does by itself.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class Client {
    static final HttpClient client = HttpClient.newHttpClient();
    static String base;

    static void ask(String step, String method, String path, BodyPublisher body) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(base + path)).method(method, body).build();
        var response = client.send(request, BodyHandlers.ofString());
        System.out.println((step + " " + response.statusCode() + " " + response.body()).trim());
    }

    public static void main(String[] args) throws Exception {
        base = "http://" + args[0];
        var none = BodyPublishers.noBody();
        ask("get", "GET", "/public", none);
        ask("denied", "GET", "/denied", none);
        ask("post", "POST", "/upload", BodyPublishers.ofString("hello"));
        ask("chunked", "POST", "/upload", BodyPublishers.ofInputStream(() -> new ByteArrayInputStream("hello".getBytes())));
        ask("head", "HEAD", "/public", none);
        ask("again", "GET", "/public?again", none);
    }
}
