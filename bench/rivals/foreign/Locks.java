import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.SynchronousQueue;

import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryOneTime;

/**
 * Curator's InterProcessMutex, by the lines that locks.py describes. It belongs to the thread that took it, so that each
 * acquire has a thread which waits until it is to release.
 */
public final class Locks {
    private static final Map<String, CuratorFramework> CLIENTS = new ConcurrentHashMap<>();
    private static final Map<String, SynchronousQueue<String>> HELD = new ConcurrentHashMap<>();
    private static final PrintStream OUT = System.out;

    private Locks() {}

    public static void main(String[] arguments) throws Exception {
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            threads.submit(() -> answer(arguments[0], words));
        }
        System.exit(0);
    }

    private static void answer(String servers, String[] words) {
        String number = words[0];
        try {
            switch (words[1]) {
                case "open" -> {
                    CuratorFramework client =
                            CuratorFrameworkFactory.newClient(servers, 30_000, 10_000, new RetryOneTime(100));
                    client.start();
                    client.blockUntilConnected();
                    CLIENTS.put(number, client);
                    say(number + " ok");
                }
                case "acquire" -> hold(number, CLIENTS.get(words[2]), words[3]);
                case "release" -> HELD.remove(words[2]).put(number);
                case "close" -> {
                    CLIENTS.remove(words[2]).close();
                    say(number + " ok");
                }
                default -> throw new IllegalArgumentException(words[1]);
            }
        } catch (Exception error) {
            say(number + " error " + error.toString().replace('\n', ' '));
        }
    }

    private static void hold(String number, CuratorFramework client, String name) throws Exception {
        InterProcessMutex mutex = new InterProcessMutex(client, "/curator/" + name);
        mutex.acquire();
        SynchronousQueue<String> release = new SynchronousQueue<>();
        HELD.put(number, release);
        say(number + " ok");
        String releaser = release.take();
        mutex.release();
        say(releaser + " ok");
    }

    private static synchronized void say(String line) {
        OUT.println(line);
        OUT.flush();
    }
}
