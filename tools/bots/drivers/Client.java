// java.net.http.HttpClient: `java Client.java BASE PLAN` with PLAN as tab-separated lines (variant, method, path, body, name, value, …).
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.time.Duration;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;

public class Client {
    public static void main(String[] given) throws Exception {
        System.out.println(Runtime.version());
        TrustManager all = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String kind) {}
            public void checkServerTrusted(X509Certificate[] chain, String kind) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        boolean second = !"1".equals(System.getenv("EDGE_HTTP"));
        for (String line : Files.readAllLines(Path.of(given[1]))) {
            String[] part = line.split("\t", -1);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, new TrustManager[] {all}, new SecureRandom());
            HttpClient client = HttpClient.newBuilder().sslContext(context)
                .version(second ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1).build();
            var body = part[3].isEmpty() ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(part[3]);
            var made = HttpRequest.newBuilder(URI.create(given[0] + "/c/java/" + part[0] + "/" + part[2]))
                .method(part[1], body).timeout(Duration.ofSeconds(10));
            for (int at = 4; at + 1 < part.length; at += 2) made.header(part[at], part[at + 1]);
            try {
                client.send(made.build(), HttpResponse.BodyHandlers.ofString());
            } catch (Exception e) {
                System.err.println(e);
            }
        }
        System.exit(0);
    }
}
